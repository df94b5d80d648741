/* Uses the grant that the data names, and replies with what came of it: see grants_test.go. */
#include "sallyport.h"

static char value[16384], body[16384];

static int use(void)
{
    sp_str grant, op, request, content;
    SP_REQUIRE(sp_json_string(sp_json_get(sp_data(), SP("grant")), &grant), SP("no grant"));
    SP_REQUIRE(sp_json_string(sp_json_get(sp_data(), SP("op")), &op), SP("no op"));
    SP_REQUIRE(sp_json_string(sp_json_get(sp_data(), SP("request")), &request), SP("no request"));
    SP_REQUIRE(sp_json_string(sp_json_get(sp_data(), SP("body")), &content), SP("no body"));

    int32_t number = sp_grant_start(grant.ptr, (uint32_t)grant.len, op.ptr, (uint32_t)op.len, request.ptr, (uint32_t)request.len, content.ptr, (uint32_t)content.len);
    sp_grant_wait(number, -1);
    int32_t values = sp_grant_read(number, 0, 0, value, sizeof value), bytes = sp_grant_read(number, 1, 0, body, sizeof body);
    int served = sp_grant_status(number) == 1;
    sp_grant_end(number);
    SP_REQUIRE(values >= 0 && bytes >= 0, SP("no answer"));

    sp_writer *to = sp_reply();
    sp_write_object(to);
    sp_write_name(to, SP("served")), sp_write_bool(to, served);
    sp_write_name(to, SP("value")), sp_write_string(to, (sp_str){value, (size_t)values});
    sp_write_name(to, SP("body")), sp_write_string(to, (sp_str){body, (size_t)bytes});
    sp_write_end(to);
    return SP_DONE;
}

SP_FUNCTION(use)
