# Every dependency, and where it comes from.
#
# HALO_<DEP>_SOURCE = AUTO | SYSTEM | BUNDLED. AUTO takes what Halo is tested with: the bundled, pinned copy where there is
# one (llama.cpp, DuckDB), else the system's package. Rooms link the targets halo_<name> made here and nothing else, so that
# it does not matter to them where a library came from.
#
#   halo_llama halo_duckdb halo_yaml halo_json halo_fmt halo_spdlog halo_cli11 halo_curl halo_libpq halo_httplib halo_xxhash
#   halo_pcre2 halo_cbc halo_sqlite halo_gtest halo_benchmark

include(HaloBundled)

# halo_resolve_dependency(<name> TARGET <halo_target> PACKAGE <cmake package> | PKGCONFIG <module>
#                         DEBIAN <package> [VERSION <minimum>] LINK <imported target>...)
# Makes <halo_target>, an INTERFACE library, from the system's copy. For those that have a bundled copy, see below.
function(halo_resolve_dependency name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TARGET;PACKAGE;PKGCONFIG;DEBIAN;VERSION" "LINK")
  halo_dependency_source(${name} source SYSTEM)
  if(source STREQUAL "BUNDLED")
    halo_fail("HALO_${name}_SOURCE=BUNDLED: there is no bundled copy; use SYSTEM and install ${arg_DEBIAN}")
  endif()
  if(arg_PACKAGE)
    find_package(${arg_PACKAGE} ${arg_VERSION} QUIET GLOBAL)
    set(found ${${arg_PACKAGE}_FOUND})
    string(STRIP "${arg_PACKAGE} ${arg_VERSION}" installed_package)
    set(installed_package "find_dependency(${installed_package})")
  else()
    find_package(PkgConfig QUIET)
    if(NOT PkgConfig_FOUND)
      halo_fail("pkg-config is missing: install the package pkg-config (scripts/bootstrap does)")
    endif()
    pkg_check_modules(HALO_PKG_${name} QUIET IMPORTED_TARGET GLOBAL ${arg_PKGCONFIG})
    set(found ${HALO_PKG_${name}_FOUND})
    set(arg_LINK PkgConfig::HALO_PKG_${name})
    string(CONCAT installed_package "find_dependency(PkgConfig)\n"
                                    "pkg_check_modules(HALO_PKG_${name} REQUIRED QUIET IMPORTED_TARGET ${arg_PKGCONFIG})")
  endif()
  if(NOT found)
    halo_fail("${name} ${arg_VERSION} is missing: install the package ${arg_DEBIAN} (scripts/bootstrap does)")
  endif()
  add_library(${arg_TARGET} INTERFACE)
  target_link_libraries(${arg_TARGET} INTERFACE ${arg_LINK})
  # Read by HaloInstall.cmake: how an embedding program finds it, and what it links.
  set_target_properties(${arg_TARGET} PROPERTIES HALO_PACKAGE "${installed_package}" HALO_PACKAGE_LINKS "${arg_LINK}")
endfunction()

halo_resolve_dependency(YAML_CPP TARGET halo_yaml PACKAGE yaml-cpp VERSION 0.7 DEBIAN libyaml-cpp-dev LINK yaml-cpp)
halo_resolve_dependency(NLOHMANN_JSON TARGET halo_json PACKAGE nlohmann_json VERSION 3.11 DEBIAN nlohmann-json3-dev
                        LINK nlohmann_json::nlohmann_json)
halo_resolve_dependency(FMT TARGET halo_fmt PACKAGE fmt VERSION 9 DEBIAN libfmt-dev LINK fmt::fmt)
halo_resolve_dependency(SPDLOG TARGET halo_spdlog PACKAGE spdlog VERSION 1.10 DEBIAN libspdlog-dev LINK spdlog::spdlog)
halo_resolve_dependency(CLI11 TARGET halo_cli11 PACKAGE CLI11 VERSION 2.1 DEBIAN libcli11-dev LINK CLI11::CLI11)
# 7.87: its header API, and a name look-up that can be given up without waiting for it.
halo_resolve_dependency(CURL TARGET halo_curl PACKAGE CURL VERSION 7.87 DEBIAN libcurl4-openssl-dev LINK CURL::libcurl)
# 14: pipelines of statements.
halo_resolve_dependency(LIBPQ TARGET halo_libpq PKGCONFIG libpq>=14 DEBIAN libpq-dev)
halo_resolve_dependency(CPP_HTTPLIB TARGET halo_httplib PKGCONFIG cpp-httplib>=0.11 DEBIAN libcpp-httplib-dev)
halo_resolve_dependency(XXHASH TARGET halo_xxhash PKGCONFIG libxxhash>=0.8 DEBIAN libxxhash-dev)
halo_resolve_dependency(PCRE2 TARGET halo_pcre2 PKGCONFIG libpcre2-8>=10.30 DEBIAN libpcre2-dev)
halo_resolve_dependency(CBC TARGET halo_cbc PKGCONFIG cbc>=2.10 DEBIAN coinor-libcbc-dev)
# 3.37: STRICT tables.
halo_resolve_dependency(SQLITE TARGET halo_sqlite PKGCONFIG sqlite3>=3.37 DEBIAN libsqlite3-dev)
if(HALO_BUILD_TESTS)
  halo_resolve_dependency(GTEST TARGET halo_gtest PACKAGE GTest VERSION 1.12 DEBIAN libgtest-dev
                          LINK GTest::gmock GTest::gtest)
endif()
if(HALO_BUILD_BENCHMARKS)
  halo_resolve_dependency(BENCHMARK TARGET halo_benchmark PACKAGE benchmark VERSION 1.7 DEBIAN libbenchmark-dev
                          LINK benchmark::benchmark)
endif()

halo_resolve_duckdb()
halo_resolve_llama()
