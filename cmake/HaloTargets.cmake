# How Halo's own targets are made: one function each for libraries, programs, tests and benchmarks.

include(GoogleTest)
find_package(Threads REQUIRED)

# Flags for all code of ours. Each warning that is switched off says why.
add_library(halo_compile_options INTERFACE)
target_compile_features(halo_compile_options INTERFACE cxx_std_20)
target_include_directories(halo_compile_options INTERFACE "${CMAKE_SOURCE_DIR}/src" "${CMAKE_SOURCE_DIR}/include")
target_link_libraries(halo_compile_options INTERFACE Threads::Threads)
target_compile_options(
  halo_compile_options
  INTERFACE
    -Wall -Wextra -Wshadow -Wconversion
    # Indices are size_t and counts in llama.cpp's and DuckDB's interfaces are int: every loop would need a cast.
    # (gcc leaves it out of -Wconversion for C++, clang does not.)
    -Wno-sign-conversion
    # Designated initializers leave members at their defaults on purpose.
    -Wno-missing-field-initializers
    # gcc 12 reports std::optional, std::variant and string concatenation of the standard library itself under -O2
    # (gcc bugs 80635 and 105651).
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
    # And it forgets of a precompiled header that it is the system's.
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<BOOL:${HALO_PRECOMPILE_HEADERS}>>:-Wno-array-bounds>
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<BOOL:${HALO_PRECOMPILE_HEADERS}>>:-Wno-stringop-overflow>
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<BOOL:${HALO_PRECOMPILE_HEADERS}>>:-Wno-stringop-overread>
    $<$<BOOL:${HALO_WERROR}>:-Werror>
    ${HALO_OWN_SANITIZE_FLAGS})

# Two sets of headers that nearly every file reads, parsed once: half of the time of a build is theirs. A file must still include
# what it uses: the builds of the sanitizers and of the fuzz targets read each header where it stands.
#   halo_headers       for rooms and programs
#   halo_test_headers  for tests, with GoogleTest's
function(halo_add_precompiled name)
  file(WRITE "${CMAKE_BINARY_DIR}/generated/${name}.cc" "// Nothing but the headers that are precompiled with it.\n")
  add_library(${name} OBJECT "${CMAKE_BINARY_DIR}/generated/${name}.cc")
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
  target_link_libraries(${name} PRIVATE halo_json halo_fmt halo_compile_options)
  target_precompile_headers(${name} PRIVATE ${ARGN} <nlohmann/json.hpp> <fmt/format.h> <algorithm> <chrono> <filesystem> <fstream>
                            <functional> <map> <memory> <optional> <set> <sstream> <string> <thread> <unordered_map> <vector>)
endfunction()
if(HALO_PRECOMPILE_HEADERS)
  # Only where it is the same on every command line may a macro matter to a precompiled header: fmt's is.
  target_compile_definitions(halo_compile_options INTERFACE $<TARGET_PROPERTY:fmt::fmt,INTERFACE_COMPILE_DEFINITIONS>)
  halo_add_precompiled(halo_headers)
  if(HALO_BUILD_TESTS)
    halo_add_precompiled(halo_test_headers <gmock/gmock.h> <gtest/gtest.h>)
    # What tests are made of runs for moments; -O3 takes longer to compile it.
    target_link_libraries(halo_test_headers PRIVATE halo_gtest)
    target_compile_options(halo_test_headers PRIVATE -O1)
  endif()
endif()

add_custom_target(halo_tests)
add_custom_target(halo_benchmarks)

# Sets <out> to link targets: a word x means halo_x where that is a library of ours, else the target x itself.
# Rooms may be named before they exist, so a room's name always means halo_<room>.
function(halo_link_names out)
  set(names "")
  foreach(name IN LISTS ARGN)
    if(name IN_LIST HALO_ROOMS OR TARGET halo_${name})
      list(APPEND names halo_${name})
    elseif(TARGET ${name})
      list(APPEND names ${name})
    else()
      message(FATAL_ERROR "DEPENDS ${name}: there is neither a library halo_${name} nor a target ${name}")
    endif()
  endforeach()
  set(${out} ${names} PARENT_SCOPE)
endfunction()

# halo_add_library(<name> SOURCES <file>... [DEPENDS <name>...])
# A room or a part of one: the static library halo_<name>. Its headers are found from src/, as "room/header.h".
function(halo_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS")
  halo_link_names(links ${arg_DEPENDS})
  add_library(halo_${name} STATIC ${arg_SOURCES})
  set_target_properties(halo_${name} PROPERTIES CXX_EXTENSIONS OFF)
  target_link_libraries(halo_${name} PUBLIC ${links} halo_compile_options)
  if(HALO_PRECOMPILE_HEADERS)
    target_precompile_headers(halo_${name} REUSE_FROM halo_headers)
  endif()
endfunction()

# halo_add_program(<name> SOURCES <file>... [DEPENDS <name>...] [HEADERS <target>]): the program bin/<name>. HEADERS: the
# precompiled ones that it takes, halo_headers unless it says others.
function(halo_add_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "HEADERS" "SOURCES;DEPENDS")
  halo_link_names(links ${arg_DEPENDS})
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
  target_link_libraries(${name} PRIVATE ${links} halo_compile_options)
  if(HALO_PRECOMPILE_HEADERS)
    if(NOT arg_HEADERS)
      set(arg_HEADERS halo_headers)
    endif()
    target_precompile_headers(${name} REUSE_FROM ${arg_HEADERS})
  endif()
endfunction()

# Sets <out> to what a test that takes at most <seconds> in a release build may take in this one.
function(halo_test_timeout out seconds)
  math(EXPR scaled "${seconds} * ${HALO_TEST_TIMEOUT_FACTOR}")
  set(${out} ${scaled} PARENT_SCOPE)
endfunction()

# halo_add_test(<name> SOURCES <file>... [DEPENDS <name>...] [LONG] [RUN_SERIAL] [TIMEOUT <seconds>] [PROCESSORS <n>])
# A GoogleTest program bin/<name>, built by the target halo_tests; each of its TESTs is one test of ctest, <name>.Suite.Case.
# LONG: not in `make test`, but in `make test-long`. RUN_SERIAL, PROCESSORS: for tests that measure or use several threads.
# HALO_SOURCE_DIR and HALO_BIN_DIR are defined as strings: the repository and build/<preset>/bin.
function(halo_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "LONG;RUN_SERIAL" "TIMEOUT;PROCESSORS" "SOURCES;DEPENDS")
  halo_add_program(${name} SOURCES ${arg_SOURCES} DEPENDS ${arg_DEPENDS} gtest HEADERS halo_test_headers)
  if(HALO_PRECOMPILE_HEADERS)
    target_compile_options(${name} PRIVATE -O1)
  endif()
  target_link_libraries(${name} PRIVATE GTest::gmock_main)
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/test")
  target_compile_definitions(${name} PRIVATE HALO_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                             HALO_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  add_dependencies(halo_tests ${name})

  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  halo_test_timeout(timeout ${arg_TIMEOUT})
  set(properties TIMEOUT ${timeout})
  if(arg_LONG)
    list(APPEND properties LABELS long)
  endif()
  if(arg_RUN_SERIAL)
    list(APPEND properties RUN_SERIAL TRUE)
  endif()
  if(arg_PROCESSORS)
    list(APPEND properties PROCESSORS ${arg_PROCESSORS})
  endif()
  if(HALO_TEST_ENVIRONMENT)
    list(APPEND properties ENVIRONMENT "${HALO_TEST_ENVIRONMENT}")
  endif()
  # PRE_TEST: the cases are listed when ctest runs, so that building never executes a test program.
  gtest_discover_tests(${name} TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 PROPERTIES ${properties})
endfunction()

# halo_add_benchmark(<name> SOURCES <file>... [DEPENDS <name>...] [OWN_MAIN])
# A program bin/<name>, built by the target halo_benchmarks, of Google Benchmark's unless it has a main of its own.
function(halo_add_benchmark name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "OWN_MAIN" "" "SOURCES;DEPENDS")
  halo_add_program(${name} SOURCES ${arg_SOURCES} DEPENDS ${arg_DEPENDS} benchmark)
  if(NOT arg_OWN_MAIN)
    target_link_libraries(${name} PRIVATE benchmark::benchmark_main)
  endif()
  set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  add_dependencies(halo_benchmarks ${name})
endfunction()
