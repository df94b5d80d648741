/* ./build makes hello.wasm of it, which `sallyport dev` takes up. There is no C library. */
#include "sallyport.h"

/* Called once for every greeting.requested event, in a sandbox that is new for each of them. */
static int hello(void)
{
    sp_str name;
    SP_REQUIRE(sp_json_string(sp_json_get(sp_data(), SP("name")), &name), SP("there is no name"));
    sp_str text = SP_CONCAT(SP("Hello, "), name, SP("!"));
    sp_log(SP_INFO, text);

    sp_writer *data = sp_publish((sp_new_event){.type = SP("greeting.made")});
    sp_write_object(data);
    sp_write_name(data, SP("text"));
    sp_write_string(data, text);
    sp_write_end(data);
    return SP_DONE;
}

SP_FUNCTION(hello)
