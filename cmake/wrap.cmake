# SPDX-License-Identifier: MIT
#
# From src/cairn.map, the one list of interposed functions, makes
#   CAIRN_WRAP_OPTIONS   -Wl,--wrap=NAME for each, which whoever links the archive passes to the linker
#   generated/wrap.h     for src/gc/interpose.c: NAME is __wrap_NAME, and which __real_ belongs to it
# Both are empty where nothing is interposed: sanitizers have interceptors of their own.
set(CAIRN_WRAP_OPTIONS "")
set(CAIRN_WRAP_TEXT "")
if(CAIRN_INTERPOSE AND NOT CAIRN_SANITIZE)
    file(READ ${CMAKE_CURRENT_SOURCE_DIR}/src/cairn.map map)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
        ${CMAKE_CURRENT_SOURCE_DIR}/src/cairn.map)
    string(REGEX REPLACE ".*cairn_\\*;(.*)local:.*" "\\1" map "${map}")
    string(REGEX MATCHALL "[a-z_0-9]+" names "${map}")
    foreach(name ${names})
        list(APPEND CAIRN_WRAP_OPTIONS -Wl,--wrap=${name})
        string(APPEND CAIRN_WRAP_TEXT
            "#define ${name} __wrap_${name}\n#define CRN_REAL___wrap_${name} __real_${name}\n")
    endforeach()
endif()
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/generated/wrap.h CONTENT "${CAIRN_WRAP_TEXT}")
if(NOT CAIRN_INTERPOSE)
    target_compile_definitions(cairn_flags INTERFACE CRN_INTERPOSE=0)
endif()
