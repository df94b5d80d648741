/* Names its grants in the ways that a compiler stores differently: see names_test.go. */
#include "sallyport.h"

static int use(void)
{
    char carts[] = "carts"; /* put on the stack, by numbers in the code */
    carts[0] = (char)(sp_attempt() > 1000 ? 'x' : carts[0]);
    int32_t number = sp_grant_start(carts, 5, "get", 3, "{\"key\":\"a\"}", 11, "", 0);
    sp_grant_wait(number, -1);
    sp_grant_end(number);
    number = sp_grant_start("orders", 6, "query", 5, "{\"query\":\"all\"}", 15, "", 0);
    sp_grant_wait(number, -1);
    sp_grant_end(number);
    return SP_DONE;
}

SP_FUNCTION(use)
