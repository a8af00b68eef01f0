# halo_build_info: what `halo version` prints. Its one source file is written anew when HEAD moves, and only if the text
# changes, so that a commit compiles one tiny file and links.

set(HALO_BACKENDS "cpu")
if(HALO_CUDA)
  string(APPEND HALO_BACKENDS ",cuda")
endif()

# Sets <out> to a path inside git's folder (worktrees have theirs elsewhere), or to nothing if it does not exist.
function(halo_git_path name out)
  execute_process(COMMAND "${GIT_EXECUTABLE}" rev-parse --git-path ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}"
                  OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  cmake_path(ABSOLUTE_PATH path BASE_DIRECTORY "${CMAKE_SOURCE_DIR}")
  if(NOT status EQUAL 0 OR NOT EXISTS "${path}")
    set(path "")
  endif()
  set(${out} ${path} PARENT_SCOPE)
endfunction()

find_package(Git QUIET)
set(head_log "")
if(Git_FOUND)
  halo_git_path(logs/HEAD head_log)
  if(NOT head_log)
    # No log, as before the first commit: the folder of branches changes with it, and the next configure run finds the log.
    halo_git_path(refs/heads head_log)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${head_log})
  endif()
endif()

set(build_info "${CMAKE_BINARY_DIR}/generated/halo_build_info.cc")
add_custom_command(
  OUTPUT "${build_info}"
  COMMAND "${CMAKE_COMMAND}" "-DGIT=${GIT_EXECUTABLE}" "-DSOURCE_DIR=${CMAKE_SOURCE_DIR}" "-DOUTPUT=${build_info}"
          "-DVERSION=${PROJECT_VERSION}" "-DLLAMA_VERSION=${HALO_LLAMA_CPP_VERSION}" "-DBACKENDS=${HALO_BACKENDS}"
          "-DDUCKDB_VERSION=${HALO_DUCKDB_VERSION}" -P "${CMAKE_SOURCE_DIR}/cmake/write_build_info.cmake"
  DEPENDS ${head_log} "${CMAKE_SOURCE_DIR}/cmake/write_build_info.cmake" "${CMAKE_SOURCE_DIR}/cmake/halo_build_info.cc.in"
  COMMENT "Recording the commit"
  VERBATIM)
add_library(halo_build_info STATIC "${build_info}")
target_include_directories(halo_build_info PUBLIC "${CMAKE_SOURCE_DIR}/cmake/include")
target_compile_features(halo_build_info PUBLIC cxx_std_20)
