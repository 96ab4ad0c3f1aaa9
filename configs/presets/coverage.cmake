# Line and branch counts of the engine's tests.
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g" CACHE STRING "")
set(S2VM_COVERAGE ON CACHE BOOL "")
