/* SPDX-License-Identifier: MIT
 *
 * Cairn: a memory manager for C. Include this one header.
 */
#ifndef CAIRN_CAIRN_H
#define CAIRN_CAIRN_H

#define CAIRN_VERSION_MAJOR 0
#define CAIRN_VERSION_MINOR 1
#define CAIRN_VERSION_PATCH 0

#include <cairn/gc.h>
#include <cairn/heap.h>
#include <cairn/object.h>
#include <cairn/safety.h>
#include <cairn/stats.h>

#endif
