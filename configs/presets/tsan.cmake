# ThreadSanitizer, for the locking rules of docs/locking.md.
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g" CACHE STRING "")
set(S2VM_SANITIZE "thread" CACHE STRING "")
