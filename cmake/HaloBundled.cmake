# The two bundled dependencies, taken from npm packages that scripts/bootstrap installed into third_party/node_modules.
# Each file is checked against cmake/pins.sha256 before it is used. What is prepared lies in build/deps, shared by presets.

set(HALO_LLAMA_CPP_VERSION "v0.5.0")
set(HALO_LLAMA_CPP_COMMIT "de3ff815ea7d559ee917f063901b8986f038abc6")
set(HALO_DUCKDB_VERSION "1.4.4")
set(HALO_DEPS_DIR "${CMAKE_SOURCE_DIR}/build/deps")
set(HALO_NODE_MODULES "${CMAKE_SOURCE_DIR}/third_party/node_modules")

# One line that says what to do, marked so that scripts/build can show it alone.
function(halo_fail text)
  message(NOTICE "halo: ${text}")
  message(FATAL_ERROR "Stopped; the line that begins with 'halo:' says why.")
endfunction()

# The source of a dependency as asked for: sets <out> to SYSTEM or BUNDLED.
function(halo_dependency_source name out automatic)
  set(HALO_${name}_SOURCE AUTO CACHE STRING "Where ${name} comes from: AUTO, SYSTEM or BUNDLED")
  set_property(CACHE HALO_${name}_SOURCE PROPERTY STRINGS AUTO SYSTEM BUNDLED)
  set(value "${HALO_${name}_SOURCE}")
  if(value STREQUAL "AUTO")
    set(value ${automatic})
  elseif(NOT value MATCHES "^(SYSTEM|BUNDLED)$")
    halo_fail("HALO_${name}_SOURCE=${value} is not known: use AUTO, SYSTEM or BUNDLED")
  endif()
  set(${out} ${value} PARENT_SCOPE)
endfunction()

# Sets <out> to a file of third_party/node_modules and <out>_SHA256 to its pin. The file is read only when <verify>.
function(halo_pinned_file path verify out)
  set(file "${HALO_NODE_MODULES}/${path}")
  file(STRINGS "${CMAKE_SOURCE_DIR}/cmake/pins.sha256" pins REGEX "  ${path}$")
  string(SUBSTRING "${pins}" 0 64 pin)
  if(verify)
    if(NOT EXISTS "${file}")
      halo_fail("third_party/node_modules/${path} is missing: run scripts/bootstrap")
    endif()
    file(SHA256 "${file}" actual)
    if(NOT actual STREQUAL pin)
      halo_fail("third_party/node_modules/${path} has SHA-256 ${actual}, cmake/pins.sha256 says ${pin}: remove third_party/node_modules and run scripts/bootstrap")
    endif()
  endif()
  set(${out} "${file}" PARENT_SCOPE)
  set(${out}_SHA256 "${pin}" PARENT_SCOPE)
endfunction()

function(halo_read_stamp file out)
  set(text "")
  if(EXISTS "${file}")
    file(READ "${file}" text)
  endif()
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

# ---- DuckDB ----------------------------------------------------------------------------------------------------------

function(halo_resolve_duckdb)
  halo_dependency_source(DUCKDB source BUNDLED)
  if(source STREQUAL "SYSTEM")
    find_library(HALO_DUCKDB_LIBRARY duckdb)
    find_path(HALO_DUCKDB_INCLUDE_DIR duckdb.h)
    if(NOT HALO_DUCKDB_LIBRARY OR NOT HALO_DUCKDB_INCLUDE_DIR)
      halo_fail("HALO_DUCKDB_SOURCE=SYSTEM: libduckdb and duckdb.h ${HALO_DUCKDB_VERSION} were not found; install them or use BUNDLED")
    endif()
    set(library "${HALO_DUCKDB_LIBRARY}")
    set(include "${HALO_DUCKDB_INCLUDE_DIR}")
  else()
    set(root "${HALO_DEPS_DIR}/duckdb")
    file(LOCK "${HALO_DEPS_DIR}/duckdb.lock" GUARD FUNCTION TIMEOUT 600)
    halo_read_stamp("${root}/stamp" stamp)
    set(bundled_library "@duckdb/node-bindings-linux-x64/libduckdb.so")
    set(bundled_header "duckdb/src/duckdb/src/include/duckdb.h")
    halo_pinned_file("${bundled_library}" FALSE so)
    halo_pinned_file("${bundled_header}" FALSE header)
    if(NOT stamp STREQUAL "${so_SHA256} ${header_SHA256}")
      halo_pinned_file("${bundled_library}" TRUE so)
      halo_pinned_file("${bundled_header}" TRUE header)
      file(REMOVE_RECURSE "${root}")
      file(COPY "${so}" DESTINATION "${root}/lib")
      file(COPY "${header}" DESTINATION "${root}/include")
      file(WRITE "${root}/stamp" "${so_SHA256} ${header_SHA256}")
    endif()
    set(library "${root}/lib/libduckdb.so")
    set(include "${root}/include")
  endif()
  add_library(halo_duckdb_imported SHARED IMPORTED GLOBAL)
  set_target_properties(halo_duckdb_imported PROPERTIES IMPORTED_LOCATION "${library}"
                        INTERFACE_INCLUDE_DIRECTORIES "${include}")
  add_library(halo_duckdb INTERFACE)
  target_link_libraries(halo_duckdb INTERFACE halo_duckdb_imported)
  # Read by HaloInstall.cmake.
  if(source STREQUAL "SYSTEM")
    set(package "find_library(HALO_DUCKDB_LIBRARY duckdb REQUIRED)")
    set(package_links "\${HALO_DUCKDB_LIBRARY}")
  else()
    set_target_properties(halo_duckdb PROPERTIES HALO_INSTALLED_LIBRARY "${library}")
    string(CONCAT package "if(NOT TARGET Halo::duckdb)\n  add_library(Halo::duckdb SHARED IMPORTED)\n"
                          "  set_target_properties(Halo::duckdb PROPERTIES IMPORTED_LOCATION "
                          "\"\${HALO_LIBRARY_DIR}/libduckdb.so\")\nendif()")
    set(package_links Halo::duckdb)
  endif()
  set_target_properties(halo_duckdb PROPERTIES HALO_PACKAGE "${package}" HALO_PACKAGE_LINKS "${package_links}")
endfunction()

# ---- llama.cpp -------------------------------------------------------------------------------------------------------

# Runs git in the checkout, whatever repository the caller's environment names.
function(halo_llama_git checkout)
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env --unset=GIT_DIR --unset=GIT_WORK_TREE --unset=GIT_INDEX_FILE
            "${GIT_EXECUTABLE}" -C "${checkout}" ${ARGN}
    RESULT_VARIABLE status ERROR_VARIABLE error OUTPUT_QUIET)
  if(NOT status EQUAL 0)
    string(REGEX REPLACE "[\r\n]+" " " error "${error}")
    halo_fail("git ${ARGN} failed in build/deps/llama.cpp (${error}): remove build/deps/llama.cpp and try again")
  endif()
endfunction()

# The pinned source with cmake/patches/llama.cpp applied, made once per pin and set of patches.
function(halo_prepare_llama_checkout checkout)
  find_package(Git QUIET)
  if(NOT Git_FOUND)
    halo_fail("git is missing: install the package git (scripts/bootstrap does)")
  endif()
  file(LOCK "${HALO_DEPS_DIR}/llama.cpp.lock" GUARD FUNCTION TIMEOUT 600)
  set(patch_dir "${CMAKE_SOURCE_DIR}/cmake/patches/llama.cpp")
  file(GLOB patches "${patch_dir}/*.patch")
  list(SORT patches)
  set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
               "${patch_dir}" ${patches} "${CMAKE_SOURCE_DIR}/cmake/pins.sha256")
  halo_pinned_file("node-llama-cpp/llama/gitRelease.bundle" FALSE bundle)
  set(wanted "${bundle_SHA256} ${HALO_LLAMA_CPP_COMMIT}")
  foreach(patch IN LISTS patches)
    file(SHA256 "${patch}" hash)
    string(APPEND wanted " ${hash}")
  endforeach()
  set(stamp_file "${HALO_DEPS_DIR}/llama.cpp.stamp")
  halo_read_stamp("${stamp_file}" stamp)
  if(stamp STREQUAL wanted AND EXISTS "${checkout}/CMakeLists.txt")
    return()
  endif()

  file(REMOVE "${stamp_file}")
  if(NOT stamp MATCHES "^${bundle_SHA256} ${HALO_LLAMA_CPP_COMMIT}" OR NOT EXISTS "${checkout}/.git")
    halo_pinned_file("node-llama-cpp/llama/gitRelease.bundle" TRUE bundle)
    message(STATUS "Unpacking llama.cpp ${HALO_LLAMA_CPP_VERSION}")
    file(REMOVE_RECURSE "${checkout}")
    file(MAKE_DIRECTORY "${checkout}")
    halo_llama_git("${checkout}" init --quiet)
    halo_llama_git("${checkout}" fetch --quiet "${bundle}" HEAD)
  endif()
  # Restores only the files that patches changed, so that a new patch does not rebuild everything.
  halo_llama_git("${checkout}" -c advice.detachedHead=false -c core.autocrlf=false
                 checkout --quiet --force "${HALO_LLAMA_CPP_COMMIT}")
  halo_llama_git("${checkout}" clean --quiet -fd)
  foreach(patch IN LISTS patches)
    halo_llama_git("${checkout}" apply --whitespace=nowarn "${patch}")
  endforeach()
  file(WRITE "${stamp_file}" "${wanted}")
endfunction()

# halo_add_llama_parts(<name> <checkout> <part>...): the static library <name> of common/<part>.cpp.
function(halo_add_llama_parts name checkout)
  add_library(${name} STATIC EXCLUDE_FROM_ALL)
  foreach(part IN LISTS ARGN)
    target_sources(${name} PRIVATE "${checkout}/common/${part}.cpp")
  endforeach()
  target_include_directories(${name} PRIVATE "${checkout}/common" "${checkout}/vendor" "${checkout}/include" "${checkout}/ggml/include")
  target_compile_features(${name} PRIVATE cxx_std_17)
  target_compile_options(${name} PRIVATE -w)
endfunction()

# Makes halo_llama: llama.cpp's library and its common library. SYSTEM means a source tree of the same version, given with
# HALO_LLAMA_CPP_DIR: the common library is never installed, so an installed libllama alone does not do.
function(halo_resolve_llama)
  halo_dependency_source(LLAMA_CPP source BUNDLED)
  if(source STREQUAL "SYSTEM")
    set(HALO_LLAMA_CPP_DIR "" CACHE PATH "Source tree of llama.cpp ${HALO_LLAMA_CPP_VERSION}")
    set(checkout "${HALO_LLAMA_CPP_DIR}")
    if(NOT EXISTS "${checkout}/common/chat.h")
      halo_fail("HALO_LLAMA_CPP_SOURCE=SYSTEM: set HALO_LLAMA_CPP_DIR to a source tree of llama.cpp ${HALO_LLAMA_CPP_VERSION}, or use BUNDLED")
    endif()
  else()
    set(checkout "${HALO_DEPS_DIR}/llama.cpp")
    halo_prepare_llama_checkout("${checkout}")
  endif()
  set(HALO_LLAMA_CPP_CHECKOUT "${checkout}")
  set(HALO_LLAMA_SOURCE_DIR "${checkout}" CACHE INTERNAL "Source tree of llama.cpp in use")
  add_subdirectory(third_party)

  add_library(halo_llama INTERFACE)
  # The folders are named one by one: llama.cpp's vendor/ has another nlohmann/json.hpp than the system's, and a room that
  # saw both would hand JSON values of one version to code compiled with the other.
  target_include_directories(halo_llama SYSTEM INTERFACE "${checkout}/include" "${checkout}/ggml/include"
                             "${checkout}/common")
  # The parts of the common library that Halo calls; compiling all of it takes longer than compiling llama.cpp itself.
  set(parts jinja/lexer jinja/parser jinja/runtime jinja/string jinja/value json json-schema json-schema-to-grammar trie unicode)
  halo_add_llama_parts(halo_llama_common "${checkout}" ${parts})
  target_sources(halo_llama_common PRIVATE "${CMAKE_SOURCE_DIR}/third_party/llama_strings.cc")
  if(HALO_FUZZ)
    target_link_libraries(halo_llama_common PUBLIC ggml-base)
    target_link_libraries(halo_llama INTERFACE $<LINK_ONLY:halo_llama_common>)
    return()
  endif()
  target_link_libraries(halo_llama INTERFACE $<LINK_ONLY:halo_llama_common> $<LINK_ONLY:llama> $<LINK_ONLY:ggml>)
  # What a test compares prompts with: llama.cpp's own use of chat templates. Linked before halo_llama_common, whose helpers of
  # strings it has itself.
  include("${checkout}/common/parsers/sources.cmake")
  list(TRANSFORM LLAMA_CHAT_PARSERS_SOURCES REPLACE "^${checkout}/common/(.*)\\.(h|cpp)$" "\\1")
  list(REMOVE_DUPLICATES LLAMA_CHAT_PARSERS_SOURCES)
  halo_add_llama_parts(
    halo_llama_chat "${checkout}" ${LLAMA_CHAT_PARSERS_SOURCES} chat chat-auto-parser-generator chat-auto-parser-helpers
    chat-diff-analyzer chat-peg-parser common fit jinja/caps llguidance log ngram-cache ngram-map ngram-mod peg-parser reasoning-budget
    sampling speculative)
  target_compile_options(halo_llama_chat PRIVATE -O0)
  target_link_libraries(halo_llama_chat PUBLIC llama-common-base halo_llama_common llama)
endfunction()
