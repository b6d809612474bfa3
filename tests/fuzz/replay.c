/* Feeds each file named on the command line (folders: each file in them) to the fuzz target once.
 * The plain stand-in for libFuzzer, so that the committed corpora run everywhere. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static long n_run;

static void replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    static uint8_t data[1 << 22];
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    /* An exact-size copy lets the address sanitizer see a read past the end. */
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy)
        exit(1);
    memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
    n_run++;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat sb;
        DIR *d = stat(argv[i], &sb) == 0 && S_ISDIR(sb.st_mode) ? opendir(argv[i]) : NULL;
        if (!d) {
            replay_file(argv[i]);
            continue;
        }
        for (struct dirent *ent; (ent = readdir(d));) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], ent->d_name);
            if (ent->d_name[0] != '.')
                replay_file(path);
        }
        closedir(d);
    }
    printf("%ld inputs replayed\n", n_run);
    return n_run ? 0 : 1;
}
