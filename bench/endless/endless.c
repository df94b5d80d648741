/*
 * A function that never ends, as tight as C makes it: what the time to kill is measured with.
 * `./build` makes endless.wasm with clang and lld.
 */
static unsigned spins;

__attribute__((export_name("sallyport_handle"))) int sallyport_handle(void)
{
    for (;;)
        spins++;
}
