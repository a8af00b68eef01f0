# Run at build time: writes OUTPUT from halo_build_info.cc.in; configure_file leaves it alone when nothing changes.
set(COMMIT "unknown")
if(GIT)
  execute_process(COMMAND "${GIT}" rev-parse --short=12 HEAD WORKING_DIRECTORY "${SOURCE_DIR}" OUTPUT_VARIABLE commit
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    set(COMMIT "${commit}")
  endif()
endif()
configure_file("${CMAKE_CURRENT_LIST_DIR}/halo_build_info.cc.in" "${OUTPUT}" @ONLY)
