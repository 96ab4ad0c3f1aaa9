# libFuzzer's targets of ept/fuzz/ and vmm/fuzz/, with AddressSanitizer and UndefinedBehaviorSanitizer; clang only.
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
set(CMAKE_C_COMPILER clang CACHE STRING "")
set(CMAKE_C_FLAGS_DEBUG "-O1 -g" CACHE STRING "")
set(S2VM_SANITIZE "fuzzer-no-link,address,undefined" CACHE STRING "")
set(S2VM_FUZZ ON CACHE BOOL "")
