/*
 * Prices an order, in C without a C library. `./build` makes price.wasm with Debian's clang and lld
 * (apt-get install clang lld), `sallyport apply` deploys it. The same function in other languages is
 * in the folders beside this one.
 */
#include "sallyport.h"

static int price(void)
{
    sp_str order = sp_data(), id;
    SP_REQUIRE(sp_json_string(sp_json_get(order, SP("id")), &id), SP("the order has no id"));

    int64_t total = 0, count = 0;
    sp_iter lines = sp_json_iter(sp_json_get(order, SP("lines")));
    while (sp_json_next(&lines)) {
        sp_str sku;
        if (sp_json_string(sp_json_get(lines.value, SP("sku")), &sku) && sp_equal(sku, SP("new")) && sp_attempt() == 1)
            return sp_fail_later(SP("the price list is being updated"), 1); /* for an example of a retry */

        count++;
        int64_t quantity, cents;
        SP_REQUIRE(sp_json_int(sp_json_get(lines.value, SP("quantity")), &quantity) && quantity >= 1 && quantity <= 1000 &&
                       sp_json_int(sp_json_get(lines.value, SP("cents")), &cents) && cents >= 0 && cents <= 1000000000,
                   SP_CONCAT(SP("line "), sp_int(count), SP(" of order "), id, SP(" has no quantity or price")));
        total += quantity * cents;
    }
    SP_REQUIRE(count > 0, SP_CONCAT(SP("order "), id, SP(" has no lines")));

    sp_log(SP_INFO, SP_CONCAT(SP("order "), id, SP(" costs "), sp_int(total)));

    sp_writer *data = sp_publish((sp_new_event){.type = SP("order.priced"), .subject = id});
    sp_write_object(data);
    sp_write_name(data, SP("id"));
    sp_write_string(data, id);
    sp_write_name(data, SP("total"));
    sp_write_int(data, total);
    sp_write_end(data);

    sp_write_int(sp_reply(), total);
    return SP_DONE;
}

SP_FUNCTION(price)
