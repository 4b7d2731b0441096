# SPDX-License-Identifier: MIT
#
# What `cmake --install` puts where: both libraries, the headers, the CMake package, cairn.pc, what gdb loads; and the
# target `uninstall`, which removes the files of the last install and the folders of ours it leaves empty.
include(CMakePackageConfigHelpers)

# The prefix as seen from cairn.pc, so that an installation may move; unless folders lie apart.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(CAIRN_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
    set(CAIRN_PC_LIBDIR "${CMAKE_INSTALL_FULL_LIBDIR}")
    set(CAIRN_PC_INCLUDEDIR "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()
    file(RELATIVE_PATH up /x/${CMAKE_INSTALL_LIBDIR}/pkgconfig /x)
    string(REGEX REPLACE "/$" "" up "${up}")
    set(CAIRN_PC_PREFIX "\${pcfiledir}/${up}")
    set(CAIRN_PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
    set(CAIRN_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()

install(TARGETS cairn_static cairn_shared cairn_instrumented EXPORT cairn-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/cairn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.h")
install(EXPORT cairn-targets NAMESPACE cairn:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cairn)
configure_file(${CMAKE_CURRENT_LIST_DIR}/cairn.pc.in cairn.pc @ONLY)
# pkg-config does not know for which compiler it is asked.
foreach(compiler GNU CLANG)
    string(REPLACE ";" " " CAIRN_PC_CFLAGS "${CAIRN_INSTRUMENTED_${compiler}}")
    string(REPLACE "SHELL:" "" CAIRN_PC_CFLAGS "${CAIRN_PC_CFLAGS}")
    set(name cairn-instrumented)
    if(compiler STREQUAL CLANG)
        set(name cairn-instrumented-clang)
    endif()
    configure_file(${CMAKE_CURRENT_LIST_DIR}/cairn-instrumented.pc.in ${name}.pc @ONLY)
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/cairn-config.cmake.in cairn-config.cmake @ONLY)
write_basic_package_version_file(cairn-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cairn.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cairn-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/cairn-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cairn)

# gdb looks for the scripts of a library by the library's full path, which is known when it is installed. The
# archive carries the path of the same file (src/object/start.c), as it is if nobody moves the prefix.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/tools/gdb/cairn_gdb DESTINATION ${CMAKE_INSTALL_DATADIR}/cairn/gdb
    FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
set(CAIRN_GDB_SCRIPT libcairn.so.${PROJECT_VERSION}-gdb.py)
install(CODE "
    set(datadir \"${CMAKE_INSTALL_DATADIR}\")
    set(libdir \"${CMAKE_INSTALL_LIBDIR}\")
    foreach(folder datadir libdir)
        if(NOT IS_ABSOLUTE \"\${\${folder}}\")
            set(\${folder} \"\${CMAKE_INSTALL_PREFIX}/\${\${folder}}\")
        endif()
    endforeach()
    get_filename_component(libdir \"\${libdir}\" REALPATH)
    file(INSTALL DESTINATION \"\${datadir}/gdb/auto-load\${libdir}\" TYPE FILE
        RENAME \"${CAIRN_GDB_SCRIPT}\" FILES \"${PROJECT_SOURCE_DIR}/tools/gdb/cairn-gdb.py\")")
target_compile_definitions(cairn_static PRIVATE
    CRN_GDB_SCRIPT="${CMAKE_INSTALL_FULL_DATADIR}/gdb/auto-load${CMAKE_INSTALL_FULL_LIBDIR}/${CAIRN_GDB_SCRIPT}")

add_custom_target(uninstall COMMAND ${PROJECT_SOURCE_DIR}/scripts/uninstall.sh
    ${CMAKE_BINARY_DIR}/install_manifest.txt VERBATIM)
