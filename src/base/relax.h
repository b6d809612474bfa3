/* Tells the processor that this is a spin loop: the one instruction that has no portable name. */
#ifndef BASE_RELAX_H
#define BASE_RELAX_H

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
