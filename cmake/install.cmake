# SPDX-License-Identifier: MIT
#
# What `cmake --install` puts where: both libraries, the headers, the CMake package, cairn.pc; and the
# target `uninstall`, which removes the files of the last install and the folders of ours it leaves empty.
include(CMakePackageConfigHelpers)
list(JOIN CAIRN_WRAP_OPTIONS " " CAIRN_PC_WRAP)

install(TARGETS cairn_static cairn_shared EXPORT cairn-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/cairn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    FILES_MATCHING PATTERN "*.h")
install(EXPORT cairn-targets NAMESPACE cairn:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cairn)
configure_file(${CMAKE_CURRENT_LIST_DIR}/cairn.pc.in cairn.pc @ONLY)
configure_file(${CMAKE_CURRENT_LIST_DIR}/cairn-config.cmake.in cairn-config.cmake @ONLY)
write_basic_package_version_file(cairn-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cairn.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cairn-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/cairn-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/cairn)
add_custom_target(uninstall COMMAND ${PROJECT_SOURCE_DIR}/scripts/uninstall.sh
    ${CMAKE_BINARY_DIR}/install_manifest.txt VERBATIM)
