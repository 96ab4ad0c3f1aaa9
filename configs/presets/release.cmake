# What users run.
set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "")
