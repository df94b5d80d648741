/* Replies with what it reads of the data's member "text", which is taken for JSON, or with a random
 * number: see json_test.go. */
#include "sallyport.h"

static void copy(sp_writer *to, sp_str value)
{
    int64_t number;
    sp_str text;
    if (sp_json_string(value, &text)) {
        sp_write_string(to, text);
    } else if (sp_json_int(value, &number)) {
        sp_write_int(to, number);
    } else if (value.ptr[0] == '{' || value.ptr[0] == '[') {
        int object = value.ptr[0] == '{';
        object ? sp_write_object(to) : sp_write_array(to);
        sp_iter it = sp_json_iter(value);
        while (sp_json_next(&it)) {
            if (object && sp_json_string(it.name, &text))
                sp_write_name(to, text);
            copy(to, it.value);
        }
        sp_write_end(to);
    } else {
        sp_write_json(to, value);
    }
}

static int read_json(void)
{
    sp_str text, way;
    SP_REQUIRE(sp_json_string(sp_json_get(sp_data(), SP("text")), &text), SP("no text"));
    SP_REQUIRE(sp_json_string(sp_json_get(sp_data(), SP("way")), &way), SP("no way"));
    if (sp_equal(way, SP("raw"))) {
        sp_write_json(sp_reply(), text);
        return SP_DONE;
    }
    if (sp_equal(way, SP("random"))) {
        int64_t number;
        sp_random(&number, sizeof number);
        sp_write_string(sp_reply(), sp_int(number));
        return SP_DONE;
    }
    const char *end = text.ptr + text.len, *at = sp__space(text.ptr, end);
    SP_REQUIRE(sp_json_valid(text), SP("not JSON"));
    while (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\n' || end[-1] == '\r')
        end--;
    copy(sp_reply(), (sp_str){at, (size_t)(end - at)});
    return SP_DONE;
}

/* Writes what is not one value, in the way that the data names. */
static int misuse(sp_str way)
{
    sp_writer *w = sp_reply();
    if (sp_equal(way, SP("two")))
        sp_write_int(w, 1), sp_write_int(w, 2);
    if (sp_equal(way, SP("no name")))
        sp_write_object(w), sp_write_int(w, 1), sp_write_end(w);
    if (sp_equal(way, SP("no value")))
        sp_write_object(w), sp_write_name(w, SP("a")), sp_write_end(w);
    if (sp_equal(way, SP("name in an array")))
        sp_write_array(w), sp_write_name(w, SP("a")), sp_write_end(w);
    if (sp_equal(way, SP("no end")))
        sp_write_array(w);
    if (sp_equal(way, SP("end")))
        sp_write_end(w);
    if (sp_equal(way, SP("deep")))
        for (int i = 0; i <= SP_DEPTH; i++)
            sp_write_array(w);
    if (sp_equal(way, SP("event without an end")))
        sp_write_object(sp_publish((sp_new_event){.type = SP("a.b")}));
    if (sp_equal(way, SP("event of two")))
        w = sp_publish((sp_new_event){.type = SP("a.b")}), sp_write_int(w, 1), sp_write_int(w, 2);
    return SP_DONE;
}

static int handle(void)
{
    sp_str way;
    if (sp_json_string(sp_json_get(sp_data(), SP("misuse")), &way))
        return misuse(way);
    return read_json();
}

SP_FUNCTION(handle)
