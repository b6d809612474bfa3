/* Libraries of our own that are opened at run time, so that one program runs with and without what
 * they need.
 */
#ifndef BASE_DYNLIB_H
#define BASE_DYNLIB_H

/* The library `name`: beside the program, as make builds it, in lib beside bin, as make installs
 * it, then where the system looks. One that is there but does not load ends the search. NULL:
 * dlerror() says why. */
void *dynlib_open(const char *name);

#endif
