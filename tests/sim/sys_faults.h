/* sim_sys: each kind of fault does what sim.h says, and only that. Each ends the program where it does not. */
#ifndef GRANARY_TESTS_SIM_SYS_FAULTS_H
#define GRANARY_TESTS_SIM_SYS_FAULTS_H

#include <stdint.h>

/* Errors of one file, lost and misdirected writes, no space, slow and stuck work. */
void sys_disk_faults(uint64_t seed);
/* Unsynced names: *apart counts power cuts that kept a later change in one directory and lost an earlier one in another. */
void sys_name_faults(uint64_t seed, unsigned *apart);
/* Slow links; messages of a process that was killed: *late counts those. */
void sys_link_faults(uint64_t seed, unsigned *late);
/* Wall clocks that jump, clocks at half speed. */
void sys_clock_faults(uint64_t seed);

#endif
