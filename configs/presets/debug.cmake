# For stepping through: no optimisation, the checker after every operation of the engine's tests.
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
