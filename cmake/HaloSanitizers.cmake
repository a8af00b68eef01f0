# Sanitizers, chosen with HALO_SANITIZE.
#
# Address and thread sanitizers need every object of the program, so they are set for all directories, third-party code
# included. The undefined-behaviour sanitizer is for Halo's own code only (see HaloTargets.cmake): ggml relies on shifts and
# unaligned loads that it reports, and those are not ours to mend.
set(HALO_OWN_SANITIZE_FLAGS "")
if(HALO_SANITIZE STREQUAL "address-undefined")
  add_compile_options(-fsanitize=address -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
  set(HALO_OWN_SANITIZE_FLAGS -fsanitize=undefined -fno-sanitize-recover=undefined)
elseif(HALO_SANITIZE STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(HALO_SANITIZE)
  message(FATAL_ERROR "HALO_SANITIZE=${HALO_SANITIZE} is not known; use address-undefined or thread.")
endif()

# Fuzz targets (the preset fuzz) also need to know which branches an input took, in our code and in what it calls of llama.cpp.
if(HALO_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(NOTICE "halo: fuzz targets need clang, whose library libFuzzer is; the compiler here is ${CMAKE_CXX_COMPILER_ID}: use the preset fuzz")
    message(FATAL_ERROR "Stopped; the line that begins with 'halo:' says why.")
  endif()
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_FLAGS -fsanitize=fuzzer)
  check_cxx_source_compiles("#include <cstddef>
    #include <cstdint>
    #include <fuzzer/FuzzedDataProvider.h>
    extern \"C\" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) { return 0; }" HALO_HAS_LIBFUZZER)
  unset(CMAKE_REQUIRED_FLAGS)
  if(NOT HALO_HAS_LIBFUZZER)
    message(NOTICE "halo: clang has no libFuzzer here: install the package libclang-rt-dev (scripts/bootstrap does)")
    message(FATAL_ERROR "Stopped; the line that begins with 'halo:' says why.")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# What tests run with, at most one variable (gtest_discover_tests passes no lists). Debian's libraries are not instrumented, so
# a std::vector that crosses into one of them may have a state that the container check takes for an overflow.
set(HALO_TEST_ENVIRONMENT "")
if(HALO_SANITIZE STREQUAL "address-undefined")
  set(HALO_TEST_ENVIRONMENT "ASAN_OPTIONS=detect_container_overflow=0:strict_string_checks=1")
elseif(HALO_SANITIZE STREQUAL "thread")
  set(HALO_TEST_ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
endif()
