/* SPDX-License-Identifier: MIT
 *
 * A library to load: data, and thread-locals that its loader must allocate for each thread.
 */
void *plugin_data;
static _Thread_local void *local[4] = {0};
static void *plugin_bss[4096];

void plugin_set_data(void *value);
void plugin_set_data(void *value) {
    plugin_data = value;
}
void *plugin_get_data(void);
void *plugin_get_data(void) {
    return plugin_data;
}
void plugin_set_bss(void *value);
void plugin_set_bss(void *value) {
    plugin_bss[2048] = value;
}
void *plugin_get_bss(void);
void *plugin_get_bss(void) {
    return plugin_bss[2048];
}
void plugin_set_local(void *value);
void plugin_set_local(void *value) {
    local[2] = value;
}
void *plugin_get_local(void);
void *plugin_get_local(void) {
    return local[2];
}
