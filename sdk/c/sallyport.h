/*
 * sallyport.h: write a Sallyport function in C.
 *
 *     #include "sallyport.h"
 *
 *     static int greet(void)
 *     {
 *         sp_str name;
 *         if (!sp_json_string(sp_json_get(sp_data(), SP("name")), &name))
 *             return sp_fail_final(SP("the data has no name"));
 *         sp_log(SP_INFO, SP_CONCAT(SP("hello, "), name));
 *         sp_write_string(sp_reply(), name);
 *         return SP_DONE;
 *     }
 *
 *     SP_FUNCTION(greet)
 *
 * Build it without a C library, with clang 11 or later and lld:
 *
 *     clang --target=wasm32 -O2 -ffreestanding -nostdlib -mbulk-memory -Wl,--no-entry \
 *         -Wl,--initial-memory=524288 greet.c -o greet.wasm
 *
 * (an instance whose memory has grown does not serve another event, so it begins with enough) or with wasi-libc, as a reactor (-mexec-model=reactor), after `#define SP_ALLOC malloc`.
 *
 * Each event starts from the memory as it was after initialisation, so nothing is ever freed, and
 * static variables hold nothing of earlier events. All text is UTF-8. Names that begin with sp__ are
 * the header's own. The contract beneath it is design/abi.md.
 */
#ifndef SALLYPORT_H
#define SALLYPORT_H

#include <stddef.h>
#include <stdint.h>

#if !__STDC_HOSTED__ && !defined(__wasm_bulk_memory__)
#error "without a C library, compile with -mbulk-memory: the compiler then copies memory by itself"
#endif

/* The calls that the host offers. */

#define SP__IMPORT(name) __attribute__((import_module("sallyport"), import_name(name)))

SP__IMPORT("event_size") extern int32_t sp__event_size(void);
SP__IMPORT("event_read") extern int32_t sp__event_read(char *to, uint32_t length);
SP__IMPORT("result_write") extern int32_t sp__result_write(const char *text, uint32_t length);
SP__IMPORT("log") extern void sp__log(int32_t level, const char *text, uint32_t length);

/* Which try at this delivery this is, from 1. */
SP__IMPORT("attempt") extern int32_t sp_attempt(void);
/* When the invocation is stopped, in milliseconds since 1970. */
SP__IMPORT("deadline") extern int64_t sp_deadline(void);

/* Grants: sp_grant_start begins a use of one and returns its number, so that several uses run at the same time; sp_grant_wait waits
 * for the answer to one, or to any for number 0, for so many milliseconds, or without end when that is negative, and returns the number of
 * one that is there, or 0. sp_grant_status is 1 when it was served and 2 when it failed. Part 0 of an answer is JSON, which is
 * {code, message, retry} of one that failed, and part 1 bytes. sp_grant_end forgets it. Names and requests are UTF-8, a request is
 * a JSON object of the grant's kind. */
SP__IMPORT("grant_start") extern int32_t sp_grant_start(const char *grant, uint32_t grant_length, const char *op, uint32_t op_length,
                                                        const char *request, uint32_t request_length, const void *body, uint32_t body_length);
SP__IMPORT("grant_wait") extern int32_t sp_grant_wait(int32_t number, int64_t milliseconds);
SP__IMPORT("grant_status") extern int32_t sp_grant_status(int32_t number);
SP__IMPORT("grant_size") extern int32_t sp_grant_size(int32_t number, int32_t part);
SP__IMPORT("grant_read") extern int32_t sp_grant_read(int32_t number, int32_t part, uint32_t offset, void *to, uint32_t length);
SP__IMPORT("grant_end") extern void sp_grant_end(int32_t number);

__attribute__((import_module("wasi_snapshot_preview1"), import_name("random_get"))) extern int32_t sp__random_get(void *to, uint32_t length);

/* Fills memory with random bytes, which are of this event alone when they are drawn in the handler.
 * A module that draws in its initialisation is initialised for each event. */
static inline void sp_random(void *to, size_t length)
{
    if (sp__random_get(to, (uint32_t)length) != 0)
        __builtin_trap();
}

/* ---- Text ------------------------------------------------------------------------------------ */

/* Text of a length, without a zero at its end. No text has a null ptr, empty text has any. */
typedef struct sp_str {
    const char *ptr;
    size_t len;
} sp_str;

/* The text of a string literal. */
#define SP(literal) ((sp_str){"" literal, sizeof(literal) - 1})

/* One text of several: SP_CONCAT(SP("order "), id). */
#define SP_CONCAT(...)                                                                             \
    sp_concat((sp_str[]){__VA_ARGS__}, sizeof((sp_str[]){__VA_ARGS__}) / sizeof(sp_str))

#ifndef SP_ALLOC
/* Memory for this event, aligned for everything; there is no way to give it back. */
#define SP_ALLOC(size) sp__alloc(size)

extern unsigned char __heap_base; /* the linker's */
__attribute__((weak)) uintptr_t sp__heap;

static inline void *sp__alloc(size_t size)
{
    const size_t align = 16, page = 65536;
    if (sp__heap == 0)
        sp__heap = ((uintptr_t)&__heap_base + align - 1) & ~(align - 1);
    size_t room = __builtin_wasm_memory_size(0) * page - sp__heap;
    if (size > room) {
        size_t pages = (size - room + page - 1) / page;
        if (size > SIZE_MAX - page || __builtin_wasm_memory_grow(0, pages) == (size_t)-1)
            __builtin_trap(); /* the host says that the memory limit is reached */
    }
    uintptr_t at = sp__heap;
    sp__heap += (size + align - 1) & ~(align - 1);
    return (void *)at;
}
#endif

static inline int sp_equal(sp_str a, sp_str b)
{
    if (a.len != b.len)
        return 0;
    for (size_t i = 0; i < a.len; i++)
        if (a.ptr[i] != b.ptr[i])
            return 0;
    return 1;
}

static inline sp_str sp_concat(const sp_str *parts, size_t count)
{
    size_t len = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    char *text = SP_ALLOC(len + 1);
    for (size_t i = 0; i < count; i++) {
        __builtin_memcpy(text + at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    return (sp_str){text, len};
}

/* A number as text. */
static inline sp_str sp_int(int64_t value)
{
    char *end = (char *)SP_ALLOC(24) + 24, *at = end;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        *--at = (char)('0' + rest % 10);
    } while ((rest /= 10) != 0);
    if (value < 0)
        *--at = '-';
    return (sp_str){at, (size_t)(end - at)};
}

/* ---- Log ------------------------------------------------------------------------------------- */

enum sp_level { SP_DEBUG, SP_INFO, SP_WARN, SP_ERROR };

/* Writes one line to the function log. */
static inline void sp_log(enum sp_level level, sp_str line)
{
    sp__log((int32_t)level, line.ptr, (uint32_t)line.len);
}

/* ---- Reading JSON ---------------------------------------------------------------------------- */

/* Values are read where they are, as the text of one JSON value. No value is text with a null ptr;
 * every call takes that too, so calls can be nested and the last one asked. */

static inline const char *sp__space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

/* The end of the string that begins at `at`, or null. */
static inline const char *sp__skip_string(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        if (*at == '"')
            return at + 1;
        if ((unsigned char)*at < ' ')
            return NULL;
        if (*at == '\\') {
            if (++at == end)
                return NULL;
            if (*at != 'u') {
                if (*at != '"' && *at != '\\' && *at != '/' && *at != 'b' && *at != 'f' && *at != 'n' && *at != 'r' && *at != 't')
                    return NULL;
                continue;
            }
            for (int i = 0; i < 4; i++) {
                char c = ++at < end ? *at : 0;
                if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
                    return NULL;
            }
        }
    }
    return NULL;
}

static inline const char *sp__skip_digits(const char *at, const char *end)
{
    const char *start = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at > start ? at : NULL;
}

static inline const char *sp__skip_number(const char *at, const char *end)
{
    if (at < end && *at == '-')
        at++;
    if (at < end && *at == '0')
        at++;
    else if ((at = sp__skip_digits(at, end)) == NULL)
        return NULL;
    if (at < end && *at == '.' && (at = sp__skip_digits(at + 1, end)) == NULL)
        return NULL;
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = sp__skip_digits(at, end);
    }
    return at;
}

static inline const char *sp__skip_word(const char *at, const char *end, sp_str word)
{
    if ((size_t)(end - at) < word.len || !sp_equal((sp_str){at, word.len}, word))
        return NULL;
    return at + word.len;
}

/* How deep arrays and objects may be nested, to be read or written. */
#define SP_DEPTH 64

/* The end of the value that begins at `at`, or null when there is none or it is not JSON. */
static inline const char *sp__skip(const char *at, const char *end)
{
    uint64_t objects = 0; /* a bit for each level: whether it is an object */
    int depth = 0;
    for (;;) {
        at = sp__space(at, end);
        if (at == end)
            return NULL;
        switch (*at) {
        case '{':
        case '[': {
            int object = *at == '{';
            at = sp__space(at + 1, end);
            if (at < end && *at == (object ? '}' : ']')) {
                at++;
                break;
            }
            if (depth == SP_DEPTH)
                return NULL;
            objects = objects << 1 | (uint64_t)object;
            depth++;
            if (object)
                goto name;
            continue;
        }
        case '"':
            at = sp__skip_string(at, end);
            break;
        case 't':
            at = sp__skip_word(at, end, SP("true"));
            break;
        case 'f':
            at = sp__skip_word(at, end, SP("false"));
            break;
        case 'n':
            at = sp__skip_word(at, end, SP("null"));
            break;
        default:
            at = sp__skip_number(at, end);
        }
        /* A value has ended; so may what it is in. */
        for (;;) {
            if (at == NULL || depth == 0)
                return at;
            at = sp__space(at, end);
            if (at == end)
                return NULL;
            if (*at == ',')
                break;
            if (*at != (objects & 1 ? '}' : ']'))
                return NULL;
            at++;
            objects >>= 1;
            depth--;
        }
        at++;
        if (!(objects & 1))
            continue;
    name:
        at = sp__space(at, end);
        if (at == end || *at != '"' || (at = sp__skip_string(at, end)) == NULL)
            return NULL;
        at = sp__space(at, end);
        if (at == end || *at++ != ':')
            return NULL;
    }
}

/* Whether text is one JSON value and nothing else. */
static inline int sp_json_valid(sp_str text)
{
    if (text.ptr == NULL)
        return 0;
    const char *end = text.ptr + text.len, *at = sp__skip(text.ptr, end);
    return at != NULL && sp__space(at, end) == end;
}

/* The members of an object or the elements of an array, one after the other:
 *
 *     sp_iter it = sp_json_iter(lines);
 *     while (sp_json_next(&it))
 *         … it.value, and in an object it.name …
 *
 * Anything else has none. */
typedef struct sp_iter {
    sp_str name;  /* the member's name as a JSON text, with its quotes */
    sp_str value; /* the text of the value */
    const char *sp__at, *sp__end;
    int sp__object;
} sp_iter;

static inline sp_iter sp_json_iter(sp_str value)
{
    sp_iter it = {{NULL, 0}, {NULL, 0}, NULL, NULL, 0};
    if (value.ptr == NULL)
        return it;
    it.sp__end = value.ptr + value.len;
    const char *at = sp__space(value.ptr, it.sp__end);
    if (at < it.sp__end && (*at == '{' || *at == '[')) {
        it.sp__object = *at == '{';
        it.sp__at = at + 1;
    }
    return it;
}

/* Takes the next member or element. Returns 0 at the end, and where the text is not JSON. */
static inline int sp_json_next(sp_iter *it)
{
    const char *end = it->sp__end, *at = it->sp__at;
    it->sp__at = NULL;
    if (at == NULL)
        return 0;
    at = sp__space(at, end);
    if (at < end && *at == ',')
        at = sp__space(at + 1, end);
    if (it->sp__object) {
        const char *after = at < end && *at == '"' ? sp__skip_string(at, end) : NULL;
        if (after == NULL)
            return 0;
        it->name = (sp_str){at, (size_t)(after - at)};
        at = sp__space(after, end);
        if (at == end || *at++ != ':')
            return 0;
        at = sp__space(at, end);
    }
    const char *after = sp__skip(at, end);
    if (after == NULL)
        return 0;
    it->value = (sp_str){at, (size_t)(after - at)};
    it->sp__at = after;
    return 1;
}

static inline int sp__hex(const char *at)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return v;
}

static inline char *sp__utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *to++ = (char)(0xe0 | c >> 12);
        } else {
            *to++ = (char)(0xf0 | c >> 18);
            *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        }
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
    }
    *to++ = (char)(0x80 | (c & 0x3f));
    return to;
}

/* Decodes a JSON string. Returns 0, and no text, when the value is none. */
static inline int sp_json_string(sp_str value, sp_str *out)
{
    *out = (sp_str){NULL, 0};
    if (value.ptr == NULL || value.len < 2 || value.ptr[0] != '"' || sp__skip_string(value.ptr, value.ptr + value.len) != value.ptr + value.len)
        return 0;
    const char *at = value.ptr + 1, *end = value.ptr + value.len - 1, *plain = at;
    while (plain < end && *plain != '\\')
        plain++;
    if (plain == end) {
        *out = (sp_str){at, (size_t)(end - at)};
        return 1;
    }
    char *text = SP_ALLOC(value.len), *to = text;
    while (at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        char c = at[1];
        at += 2;
        switch (c) {
        case 'b': *to++ = '\b'; break;
        case 'f': *to++ = '\f'; break;
        case 'n': *to++ = '\n'; break;
        case 'r': *to++ = '\r'; break;
        case 't': *to++ = '\t'; break;
        case 'u': {
            uint32_t high = (uint32_t)sp__hex(at), low;
            at += 4;
            if (high >= 0xd800 && high < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u' &&
                (low = (uint32_t)sp__hex(at + 2)) >= 0xdc00 && low < 0xe000) {
                at += 6;
                high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            } else if (high >= 0xd800 && high < 0xe000) {
                high = 0xfffd;
            }
            to = sp__utf8(to, high);
            break;
        }
        default: *to++ = c;
        }
    }
    *out = (sp_str){text, (size_t)(to - text)};
    return 1;
}

/* Reads a JSON number that is an integer of 64 bits. Returns 0, and 0 as the number, for others. */
static inline int sp_json_int(sp_str value, int64_t *out)
{
    *out = 0;
    if (value.ptr == NULL || value.len == 0 || sp__skip_number(value.ptr, value.ptr + value.len) != value.ptr + value.len)
        return 0;
    int negative = value.ptr[0] == '-';
    uint64_t most = (uint64_t)INT64_MAX + (uint64_t)negative, n = 0;
    for (size_t i = (size_t)negative; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            return 0;
        uint64_t digit = (uint64_t)(value.ptr[i] - '0');
        if (n > (most - digit) / 10)
            return 0;
        n = n * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - n) : (int64_t)n;
    return 1;
}

/* The value of an object's member, or no value. */
static inline sp_str sp_json_get(sp_str object, sp_str name)
{
    sp_iter it = sp_json_iter(object);
    sp_str found;
    while (it.sp__object && sp_json_next(&it))
        if (sp_json_string(it.name, &found) && sp_equal(found, name))
            return it.value;
    return (sp_str){NULL, 0};
}

/* ---- Writing JSON ---------------------------------------------------------------------------- */

/* A writer takes one JSON value: a scalar, or sp_write_object … sp_write_end. It sets commas and
 * quotes itself, so that data can never become syntax, and fails the attempt when what was written
 * is not one value: a member without a name, an array without its end. */
typedef struct sp_writer {
    char *ptr;
    size_t len, cap;
    const char *lead;  /* is written before the value */
    const char *fault; /* the first thing that was wrong */
    uint64_t objects, used;
    int depth, named, written;
} sp_writer;

static inline void sp__put(sp_writer *w, const char *text, size_t len)
{
    if (len > w->cap - w->len) {
        size_t cap = (w->cap + len) * 2 + 256;
        char *more = SP_ALLOC(cap);
        __builtin_memcpy(more, w->ptr, w->len);
        w->ptr = more;
        w->cap = cap;
    }
    __builtin_memcpy(w->ptr + w->len, text, len);
    w->len += len;
}

static inline void sp__puts(sp_writer *w, const char *text)
{
    size_t len = 0;
    while (text[len] != 0)
        len++;
    sp__put(w, text, len);
}

static inline int sp__broken(sp_writer *w, int broken, const char *why)
{
    if (broken && w->fault == NULL)
        w->fault = why;
    return w->fault != NULL;
}

/* The length of the UTF-8 sequence at `at`, or 0 when it is none. */
static inline size_t sp__sequence(const unsigned char *at, size_t left)
{
    unsigned char c = at[0], low = 0x80, high = 0xbf;
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n > left)
        return 0;
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
        if (at[i] < low || at[i] > high)
            return 0;
    return n;
}

static inline void sp__quote(sp_writer *w, sp_str s)
{
    static const char hex[] = "0123456789abcdef";
    sp__put(w, "\"", 1);
    size_t start = 0, i = 0;
    while (i < s.len) {
        unsigned char c = (unsigned char)s.ptr[i];
        size_t n = sp__sequence((const unsigned char *)s.ptr + i, s.len - i);
        if (n > 0 && c >= ' ' && c != '"' && c != '\\') {
            i += n;
            continue;
        }
        sp__put(w, s.ptr + start, i - start);
        if (n == 0)
            sp__puts(w, "\\ufffd"); /* not UTF-8 */
        else if (c == '"' || c == '\\')
            sp__put(w, (char[]){'\\', (char)c}, 2);
        else
            sp__put(w, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        start = ++i;
    }
    sp__put(w, s.ptr + start, s.len - start);
    sp__put(w, "\"", 1);
}

/* Says whether a value may come here, and sets what belongs before it. */
static inline int sp__begin(sp_writer *w)
{
    if (w->depth == 0) {
        if (sp__broken(w, w->written, "a second value"))
            return 0;
        w->written = 1;
        if (w->lead != NULL)
            sp__puts(w, w->lead);
        return 1;
    }
    if (w->objects & 1) {
        if (sp__broken(w, !w->named, "a member without a name"))
            return 0;
        w->named = 0;
        return 1;
    }
    if (w->used & 1)
        sp__put(w, ",", 1);
    w->used |= 1;
    return w->fault == NULL;
}

static inline void sp__open(sp_writer *w, int object)
{
    if (!sp__begin(w) || sp__broken(w, w->depth == SP_DEPTH, "too many levels"))
        return;
    sp__put(w, object ? "{" : "[", 1);
    w->depth++;
    w->objects = w->objects << 1 | (uint64_t)object;
    w->used <<= 1;
}

static inline void sp_write_object(sp_writer *w) { sp__open(w, 1); }
static inline void sp_write_array(sp_writer *w) { sp__open(w, 0); }

/* Ends the object or array that was begun last. */
static inline void sp_write_end(sp_writer *w)
{
    if (sp__broken(w, w->depth == 0 || w->named, "an end where there is none"))
        return;
    sp__put(w, w->objects & 1 ? "}" : "]", 1);
    w->depth--;
    w->objects >>= 1;
    w->used >>= 1;
}

/* Writes the name of a member; its value comes next. */
static inline void sp_write_name(sp_writer *w, sp_str name)
{
    if (sp__broken(w, w->depth == 0 || !(w->objects & 1) || w->named, "a name outside an object"))
        return;
    if (w->used & 1)
        sp__put(w, ",", 1);
    w->used |= 1;
    w->named = 1;
    sp__quote(w, name);
    sp__put(w, ":", 1);
}

static inline void sp_write_string(sp_writer *w, sp_str s)
{
    if (sp__begin(w))
        sp__quote(w, s);
}

/* Writes the text of one JSON value, such as a part of the event. */
static inline void sp_write_json(sp_writer *w, sp_str value)
{
    if (sp__begin(w) && !sp__broken(w, !sp_json_valid(value), "text that is not JSON"))
        sp__put(w, value.ptr, value.len);
}

static inline void sp_write_int(sp_writer *w, int64_t value) { sp_write_json(w, sp_int(value)); }
static inline void sp_write_bool(sp_writer *w, int value) { sp_write_json(w, value ? SP("true") : SP("false")); }
static inline void sp_write_null(sp_writer *w) { sp_write_json(w, SP("null")); }

/* ---- The event and its result ---------------------------------------------------------------- */

/* An event to publish; the type is required, and a publish grant must name it. */
typedef struct sp_new_event {
    sp_str type, subject, id;
} sp_new_event;

typedef struct sp__state {
    sp_str event;
    sp_writer reply, events, error;
    int publishing;
} sp__state;

/* One for the program, in however many files the header is included. */
__attribute__((weak)) sp__state sp__this;

/* The event, in the JSON format of CloudEvents 1.0. */
static inline sp_str sp_event(void)
{
    if (sp__this.event.ptr == NULL) {
        uint32_t size = (uint32_t)sp__event_size();
        char *text = SP_ALLOC(size + 1);
        sp__this.event = (sp_str){text, (size_t)sp__event_read(text, size)};
    }
    return sp__this.event;
}

/* The JSON text of the event's data; no value when it has none, or has data_base64. */
static inline sp_str sp_data(void) { return sp_json_get(sp_event(), SP("data")); }

/* An attribute that is a string, such as SP("type"); no text when the event does not have it. */
static inline sp_str sp_attribute(sp_str name)
{
    sp_str text;
    sp_json_string(sp_json_get(sp_event(), name), &text);
    return text;
}

/* Returns the writer of the reply that a synchronous caller gets. Without a value there is no reply. */
static inline sp_writer *sp_reply(void) { return &sp__this.reply; }

static inline void sp__end_event(void)
{
    sp_writer *w = &sp__this.events;
    if (!sp__this.publishing || sp__broken(w, w->depth > 0, "an object or array without its end"))
        return;
    sp__put(w, "}", 1);
    w->written = sp__this.publishing = 0;
}

/* Publishes an event when the handler returns SP_DONE, and returns the writer of its data:
 *
 *     sp_write_int(sp_publish((sp_new_event){.type = SP("order.priced"), .subject = id}), total);
 */
static inline sp_writer *sp_publish(sp_new_event e)
{
    sp_writer *w = &sp__this.events;
    sp__end_event();
    if (w->fault != NULL)
        return w;
    sp__puts(w, w->len > 0 ? ",{\"type\":" : "{\"type\":");
    sp__quote(w, e.type);
    if (e.subject.len > 0) {
        sp__puts(w, ",\"subject\":");
        sp__quote(w, e.subject);
    }
    if (e.id.len > 0) {
        sp__puts(w, ",\"id\":");
        sp__quote(w, e.id);
    }
    w->lead = ",\"data\":";
    sp__this.publishing = 1;
    return w;
}

/* What a handler returns. */
enum { SP_DONE = 0, SP_FAILED = 1 };

static inline int sp__fail(sp_str message, int final, int64_t seconds)
{
    sp_writer *w = &sp__this.error;
    *w = (sp_writer){0};
    sp_write_object(w);
    sp_write_name(w, SP("message"));
    sp_write_string(w, message);
    if (final) {
        sp_write_name(w, SP("retry"));
        sp_write_bool(w, 0);
    }
    if (seconds > 0) {
        sp_write_name(w, SP("retry_after_seconds"));
        sp_write_int(w, seconds);
    }
    sp_write_end(w);
    return SP_FAILED;
}

/* Fail the attempt: `return sp_fail(SP("no stock"));`. Replies and events do not count then. */
static inline int sp_fail(sp_str message) { return sp__fail(message, 0, 0); }
/* … and no further attempt is made. */
static inline int sp_fail_final(sp_str message) { return sp__fail(message, 1, 0); }
/* … and the next attempt is not made earlier than that. */
static inline int sp_fail_later(sp_str message, int64_t seconds) { return sp__fail(message, 0, seconds); }

/* Returns from the handler, failed for good, unless the condition holds. */
#define SP_REQUIRE(condition, message)                                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return sp_fail_final(message);                                                         \
    } while (0)

static inline void sp__send(const char *before, const sp_writer *w, const char *after)
{
    sp_writer out = {0};
    sp__puts(&out, before);
    sp__put(&out, w->ptr, w->len);
    sp__puts(&out, after);
    sp__result_write(out.ptr, (uint32_t)out.len);
}

static inline int32_t sp__run(int (*handler)(void))
{
    int status = handler();
    sp_writer *reply = &sp__this.reply, *events = &sp__this.events;
    sp__end_event();
    sp__broken(reply, reply->depth > 0, "an object or array without its end");
    const char *fault = reply->fault != NULL ? reply->fault : events->fault;
    if (status == SP_DONE && fault != NULL) {
        size_t len = 0;
        while (fault[len] != 0)
            len++;
        status = sp_fail(SP_CONCAT(SP("the function wrote "), ((sp_str){fault, len})));
    }
    if (status != SP_DONE) {
        if (sp__this.error.len > 0)
            sp__send("{\"error\":", &sp__this.error, "}");
        return status;
    }
    if (reply->written)
        sp__send("{\"reply\":", reply, events->len > 0 ? "," : "}");
    if (events->len > 0)
        sp__send(reply->written ? "\"events\":[" : "{\"events\":[", events, "]}");
    return status;
}

/* Makes `int handler(void)` the function. Write it once, in one file. */
#define SP_FUNCTION(handler)                                                                       \
    __attribute__((export_name("sallyport_handle"))) int32_t sp__handle(void) { return sp__run(handler); }

#endif
