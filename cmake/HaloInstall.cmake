# `cmake --install`: the program, the headers, the archives that make up the library, and a package for find_package(Halo),
# whose one target is Halo::halo. Everything installed may be moved as a whole.
#
#   bin/halo   include/halo/   lib/halo/*.a   lib/libduckdb.so   lib/cmake/Halo/   share/halo/vocabularies/
#
# What is to be linked is found by walking the build's own targets from halo_session, so that it cannot be forgotten here:
#   HALO_INSTALL_ARCHIVES   targets: static libraries of ours and of llama.cpp
#   HALO_INSTALL_PACKAGES   lines of HaloConfig.cmake that find what is not installed with Halo
#   HALO_INSTALL_LINKS      what an embedding program links beside the archives

include(CMakePackageConfigHelpers)

function(halo_append_once property)
  get_property(values GLOBAL PROPERTY ${property})
  foreach(value IN LISTS ARGN)
    if(NOT value IN_LIST values)
      list(APPEND values "${value}")
    endif()
  endforeach()
  set_property(GLOBAL PROPERTY ${property} "${values}")
endfunction()

# True if a target brings nothing to link: headers alone. An embedding program does not see them.
function(halo_is_headers_only target out)
  set(${out} FALSE PARENT_SCOPE)
  if(TARGET ${target})
    get_target_property(type ${target} TYPE)
    get_target_property(links ${target} INTERFACE_LINK_LIBRARIES)
    if(type STREQUAL "INTERFACE_LIBRARY" AND NOT links)
      set(${out} TRUE PARENT_SCOPE)
    endif()
  endif()
endfunction()

# A name that is no target here: a library of the system, or an imported target of llama.cpp's folders.
function(halo_collect_name name)
  if(name MATCHES "^OpenMP::")
    # The runtime that the archives were compiled for, whatever the embedding program's compiler would choose.
    halo_append_once(HALO_INSTALL_LINKS ${OpenMP_CXX_LIB_NAMES})
  elseif(name MATCHES "^CUDA::")
    halo_append_once(HALO_INSTALL_PACKAGES "find_dependency(CUDAToolkit)")
    halo_append_once(HALO_INSTALL_LINKS ${name})
  elseif(name STREQUAL "Threads::Threads")
    halo_append_once(HALO_INSTALL_PACKAGES "find_dependency(Threads)")
    halo_append_once(HALO_INSTALL_LINKS ${name})
  elseif(name MATCHES "::|^\\$<")
    message(FATAL_ERROR "cmake/HaloInstall.cmake does not know how an embedding program would find ${name}")
  else()
    halo_append_once(HALO_INSTALL_LINKS ${name})
  endif()
endfunction()

function(halo_collect item)
  if(item MATCHES "^::@")  # where a link was asked for, not what
    return()
  endif()
  string(REGEX REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1" item "${item}")
  get_property(seen GLOBAL PROPERTY HALO_INSTALL_SEEN)
  if(item IN_LIST seen)
    return()
  endif()
  set_property(GLOBAL APPEND PROPERTY HALO_INSTALL_SEEN "${item}")
  if(NOT TARGET ${item} OR item MATCHES "^(OpenMP|CUDA|Threads)::")
    halo_collect_name("${item}")
    return()
  endif()
  get_target_property(aliased ${item} ALIASED_TARGET)
  if(aliased)
    halo_collect(${aliased})
    return()
  endif()

  get_target_property(package ${item} HALO_PACKAGE)
  get_target_property(package_links ${item} HALO_PACKAGE_LINKS)
  get_target_property(type ${item} TYPE)
  if(package)
    halo_is_headers_only("${package_links}" headers_only)
    if(NOT headers_only)
      halo_append_once(HALO_INSTALL_PACKAGES "${package}")
      halo_append_once(HALO_INSTALL_LINKS ${package_links})
    endif()
    get_target_property(library ${item} HALO_INSTALLED_LIBRARY)
    if(library)
      install(FILES "${library}" TYPE LIB COMPONENT halo)
    endif()
    return()
  elseif(type STREQUAL "STATIC_LIBRARY")
    halo_append_once(HALO_INSTALL_ARCHIVES ${item})
  elseif(NOT type STREQUAL "INTERFACE_LIBRARY")
    message(FATAL_ERROR "cmake/HaloInstall.cmake does not know how to install ${item} (${type})")
  endif()
  foreach(property IN ITEMS LINK_LIBRARIES INTERFACE_LINK_LIBRARIES)
    get_target_property(links ${item} ${property})
    if(links)
      foreach(link IN LISTS links)
        halo_collect("${link}")
      endforeach()
    endif()
  endforeach()
endfunction()

function(halo_install)
  halo_collect(halo_session)
  get_property(archives GLOBAL PROPERTY HALO_INSTALL_ARCHIVES)
  get_property(packages GLOBAL PROPERTY HALO_INSTALL_PACKAGES)
  get_property(links GLOBAL PROPERTY HALO_INSTALL_LINKS)

  set(HALO_CONFIG_ARCHIVES "")
  foreach(archive IN LISTS archives)
    install(FILES "$<TARGET_FILE:${archive}>" DESTINATION "${CMAKE_INSTALL_LIBDIR}/halo" RENAME "lib${archive}.a"
            COMPONENT halo)
    list(APPEND HALO_CONFIG_ARCHIVES "lib${archive}.a")
  endforeach()
  list(JOIN packages "\n" HALO_CONFIG_PACKAGES)
  set(HALO_CONFIG_LINKS ${links})

  file(RELATIVE_PATH libraries_from_bin "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
  set_target_properties(halo PROPERTIES INSTALL_RPATH "$ORIGIN/${libraries_from_bin}")
  install(TARGETS halo RUNTIME COMPONENT halo)
  install(DIRECTORY "${CMAKE_SOURCE_DIR}/include/halo" TYPE INCLUDE COMPONENT halo FILES_MATCHING PATTERN "*.h")
  install(DIRECTORY "${CMAKE_BINARY_DIR}/share/halo" TYPE DATA COMPONENT halo)
  install(FILES "${CMAKE_SOURCE_DIR}/LICENSE" "${CMAKE_SOURCE_DIR}/THIRD_PARTY_NOTICES.md" TYPE DOC COMPONENT halo)

  set(folder "${CMAKE_INSTALL_LIBDIR}/cmake/Halo")
  set(generated "${CMAKE_BINARY_DIR}/generated/package")
  configure_package_config_file("${CMAKE_SOURCE_DIR}/cmake/HaloConfig.cmake.in" "${generated}/HaloConfig.cmake"
                                INSTALL_DESTINATION "${folder}" PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
  # Until version 1 every minor version may change the headers.
  write_basic_package_version_file("${generated}/HaloConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
  install(FILES "${generated}/HaloConfig.cmake" "${generated}/HaloConfigVersion.cmake" DESTINATION "${folder}" COMPONENT halo)
endfunction()
