# Line and branch counts of the tests.
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
set(S2VM_COVERAGE ON CACHE BOOL "")
