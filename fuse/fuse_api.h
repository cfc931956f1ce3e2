/* The one place that chooses the version of libfuse's interface. */
#ifndef GRANARY_FUSE_FUSE_API_H
#define GRANARY_FUSE_FUSE_API_H

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <fuse_lowlevel.h>

#endif
