package js

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/cell/js/web"
)

// maxParameters is how many parameters of a query are read here: of more, the prelude makes the request.
const maxParameters = 256

// noGrant stands for the grant of a URL.
const noGrant = -1

// Grant is what a script is told of a grant of its function.
type Grant struct {
	Name, Kind string
	// About is what the kind's part of the prelude has to know; of http, methods and the template of a URL.
	About string
}

// begun is a use of a grant that a script has a promise of.
type begun struct {
	resolve, reject value
	// finish makes the promise's value of the answer; see hostUse.
	finish value
	// http says that a Response is to be made, and asked is the URL that fetch got.
	http  bool
	asked string
}

// grant returns the name of the grant with a number; of none, a name that no grant has.
func (vm *VM) grant(number int32) string {
	if vm.grants == nil {
		vm.grants = vm.host.Grants()
	}
	if number < 0 || int(number) >= len(vm.grants) {
		return ""
	}
	return vm.grants[number].Name
}

// begin returns the promise of a use that was begun, or the integer 0 when none could be.
func (vm *VM) begin(ctx context.Context, number uint32, b begun) (value, error) {
	if number == 0 {
		return vm.integer(0), nil
	}
	at := vm.state.scratch + functionsAt
	promise, err := vm.call(ctx, fnNewPromise, uint64(vm.state.context), uint64(at))
	if err != nil || value(promise).tag() == vm.state.tags.exception {
		return value(promise), err // what comes of the use finds nobody
	}
	if b.resolve, err = vm.unbox(at); err != nil {
		return 0, err
	}
	if b.reject, err = vm.unbox(at + 8); err != nil {
		return 0, err
	}
	vm.begun[number] = b
	return value(promise), nil
}

// hostGrants returns the JSON of the function's grants: of each its name, its kind, and what is to be known about it.
func hostGrants(ctx context.Context, vm *VM, _ arguments) (value, error) {
	grants := vm.host.Grants()
	if len(grants) == 0 {
		return vm.newString(ctx, nil)
	}
	list := make([][3]string, len(grants))
	for i, g := range grants {
		list[i] = [3]string{g.Name, g.Kind, g.About}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return 0, err
	}
	return vm.newString(ctx, text)
}

// hostUse is use(grant, op, request, body, finish): it begins a use of a grant, given by its number, with a JSON text and maybe a Uint8Array. It returns
// the promise of it, or 0. The promise's value is that of the answer's JSON; with a text for finish, this member of it, or the answer's bytes where it has
// none; and with a function, which MUST be one that the prelude keeps for ever, what that returns of the value and of the bytes.
func hostUse(ctx context.Context, vm *VM, args arguments) (value, error) {
	op, err := vm.unicode(ctx, args.at(1))
	if err != nil {
		return 0, err
	}
	request, err := vm.unicode(ctx, args.at(2))
	if err != nil {
		return 0, err
	}
	body, err := vm.body(ctx, args.at(3))
	if err != nil {
		return 0, err
	}
	return vm.begin(ctx, vm.host.Use(vm.grant(args.integer(0)), string(op), request, body), begun{finish: args.at(4)})
}

// unicode returns a copy of a string in UTF-8, with the replacement character for lone surrogates.
func (vm *VM) unicode(ctx context.Context, v value) (p []byte, err error) {
	err = vm.text(ctx, v, func(_ uint32, text []byte) error {
		p = wellFormed(bytes.Clone(text))
		return nil
	})
	return p, err
}

// wellFormed replaces, in place, lone surrogates: QuickJS writes them as if they were characters, of three bytes.
func wellFormed(p []byte) []byte {
	if utf8.Valid(p) {
		return p
	}
	for rest := p; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			n = min(3, len(rest))
			copy(rest[:n], "\ufffd")
		}
		rest = rest[n:]
	}
	return p
}

// body returns the bytes of a request: a copy of a string in UTF-8 or a Uint8Array, or nil for undefined.
func (vm *VM) body(ctx context.Context, v value) ([]byte, error) {
	switch v.tag() {
	case vm.state.tags.undefined:
		return nil, nil
	case vm.state.tags.text, vm.state.tags.rope:
		return vm.unicode(ctx, v)
	}
	_, p, err := vm.bytes(ctx, v)
	return p, err
}

// hostGet is get(grant, key, finish), the use "get" of a grant with {"key": key}. It returns undefined for a key that is no text of Unicode.
func hostGet(ctx context.Context, vm *VM, args arguments) (value, error) {
	var request []byte
	err := vm.text(ctx, args.at(1), func(_ uint32, text []byte) error {
		quoted, err := jsontext.AppendQuote(append(make([]byte, 0, len(text)+16), `{"key":`...), text)
		if err == nil {
			request = append(quoted, '}')
		}
		return nil
	})
	if err != nil || request == nil {
		return vm.state.undefined, err
	}
	return vm.begin(ctx, vm.host.Use(vm.grant(args.integer(0)), "get", request, nil), begun{finish: args.at(2)})
}

// hostQuery is query(grant, name, values, count), the use "query" of a grant with {"query": name, "params": values}. It returns undefined when one of the
// values, which are an array's, is not of the usual kinds.
func hostQuery(ctx context.Context, vm *VM, args arguments) (value, error) {
	count := args.integer(3)
	if count < 0 || count > maxParameters {
		return vm.state.undefined, nil
	}
	request, usual, err := vm.appendText(ctx, append(make([]byte, 0, 128), `{"query":`...), args.at(1))
	request = append(request, `,"params":[`...)
	for i := range int(count) {
		if err != nil || !usual {
			return vm.state.undefined, err
		}
		if i > 0 {
			request = append(request, ',')
		}
		var v value
		if v, err = vm.element(ctx, args.at(2), i); err == nil {
			request, usual, err = vm.appendParameter(ctx, request, v)
		}
	}
	if err != nil || !usual {
		return vm.state.undefined, err
	}
	request = append(request, "]}"...)
	return vm.begin(ctx, vm.host.Use(vm.grant(args.integer(0)), "query", request, nil), begun{finish: vm.state.undefined})
}

// appendParameter appends a parameter as JSON, and frees it. It reports false when it is not of the usual kinds.
func (vm *VM) appendParameter(ctx context.Context, b []byte, v value) ([]byte, bool, error) {
	usual := true
	var err error
	switch v.tag() {
	case vm.state.tags.integer:
		return strconv.AppendInt(b, int64(int32(v)), 10), true, nil
	case vm.state.tags.undefined, vm.state.tags.null:
		return append(b, "null"...), true, nil
	case vm.state.tags.boolean:
		return strconv.AppendBool(b, uint32(v) != 0), true, nil
	case vm.state.tags.text, vm.state.tags.rope:
		b, usual, err = vm.appendText(ctx, b, v)
	default:
		usual = false
	}
	return b, usual, errors.Join(err, vm.free(ctx, v))
}

// appendText appends a string as JSON. It reports false when it is no text of Unicode.
func (vm *VM) appendText(ctx context.Context, b []byte, v value) ([]byte, bool, error) {
	valid := true
	err := vm.text(ctx, v, func(_ uint32, text []byte) error {
		quoted, err := jsontext.AppendQuote(b, text)
		if valid = err == nil; valid {
			b = quoted
		}
		return nil
	})
	return b, valid, err
}

// badHeaders is what hostFetch returns for headers that are none. For what cannot be begun now it returns 0, as begin does.
const badHeaders = 1

// The arguments of hostFetch.
const (
	fetchGrant uint32 = iota
	fetchTarget
	fetchQuery
	fetchMethod
	fetchLines
	fetchCount
	fetchBody
	fetchType
)

// hostFetch is fetch(grant, target, query, method, headers, count, body, type), the use "fetch" of an http grant. The target is the JSON of the template's
// values, and query JSON too; or the target is a URL, for the grant noGrant, which is found by it. headers are those of web.ParseHeaders, and type is that of the
// body. It returns the promise of a Response, or a number that says why there is none, or undefined when no grant covers the URL.
func hostFetch(ctx context.Context, vm *VM, args arguments) (value, error) {
	var texts [fetchType + 1]string
	for _, i := range []uint32{fetchTarget, fetchQuery, fetchMethod, fetchLines, fetchType} {
		if v := args.at(i); v != vm.state.undefined {
			text, err := vm.unicode(ctx, v)
			if err != nil {
				return 0, err
			}
			texts[i] = string(text)
		}
	}
	headers, ok := web.ParseHeaders(texts[fetchLines], int(args.integer(fetchCount)))
	if !ok {
		return vm.integer(badHeaders), nil
	}
	body, err := vm.body(ctx, args.at(fetchBody))
	if err != nil {
		return 0, err
	}
	r := fetchRequest{values: texts[fetchTarget], query: texts[fetchQuery], method: texts[fetchMethod], headers: headers, contentType: texts[fetchType]}
	grant := args.integer(fetchGrant)
	if grant == noGrant {
		if grant = vm.covering(&r); grant < 0 {
			return vm.state.undefined, nil
		}
	}
	return vm.begin(ctx, vm.host.Use(vm.grant(grant), "fetch", r.json(), body), begun{http: true, asked: r.url})
}

// fetchRequest is what a script asks an http grant for.
type fetchRequest struct {
	values, query string // JSON, or empty
	url           string // instead of them
	method        string
	headers       []web.Header
	contentType   string // of the body, by itself
}

// json writes the request as the grant takes it.
func (r *fetchRequest) json() []byte {
	b := append(make([]byte, 0, 256+len(r.values)+len(r.query)+len(r.url)), '{')
	if r.url != "" {
		b = appendMember(b, `"url":`, r.url)
	}
	for _, m := range [][2]string{{`"values":`, r.values}, {`"query":`, r.query}} {
		if m[1] != "" {
			b = append(append(append(b, m[0]...), m[1]...), ',')
		}
	}
	if r.method != "" {
		b = appendMember(b, `"method":`, r.method)
	}
	b = append(b, `"headers":[`...)
	typed := r.contentType == ""
	for i, h := range r.headers {
		typed = typed || h.Name == "content-type"
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHeader(b, h)
	}
	if !typed {
		if len(r.headers) > 0 {
			b = append(b, ',')
		}
		b = appendHeader(b, web.Header{Name: "content-type", Value: r.contentType})
	}
	return append(b, "]}"...)
}

func appendMember(b []byte, name, text string) []byte {
	b, _ = jsontext.AppendQuote(append(b, name...), text) // the text is valid UTF-8
	return append(b, ',')
}

func appendHeader(b []byte, h web.Header) []byte {
	b, _ = jsontext.AppendQuote(append(b, '['), h.Name)
	b, _ = jsontext.AppendQuote(append(b, ','), h.Value)
	return append(b, ']')
}

// covering returns the number of the grant that covers a URL, or a negative one. It makes the request one for the URL.
func (vm *VM) covering(r *fetchRequest) int32 {
	u, ok := web.Resolve(web.PartHref, r.values, "")
	if !ok {
		return noGrant
	}
	href, cuts := u.Serialise()
	if cuts[4] > cuts[1] { // with credentials
		return noGrant
	}
	if r.method = strings.ToUpper(r.method); r.method == "" {
		r.method = "GET"
	}
	r.values, r.url = "", href[:cuts[10]]
	for i, t := range vm.templates() {
		if t.Covers(r.method, href, cuts) {
			return int32(i)
		}
	}
	return noGrant
}

// templates returns those of the function's http grants, and for others such as cover nothing.
func (vm *VM) templates() []web.Template {
	if vm.covered == nil {
		_ = vm.grant(noGrant) // reads them
		vm.covered = make([]web.Template, len(vm.grants))
		for i, g := range vm.grants {
			if g.Kind == "http" {
				vm.covered[i] = web.ParseTemplate(g.About)
			}
		}
	}
	return vm.covered
}

// hostHeader is header(name, value): the name in lower case, or undefined when one of them is none.
func hostHeader(ctx context.Context, vm *VM, args arguments) (value, error) {
	name, err := vm.unicode(ctx, args.at(0))
	if err != nil {
		return 0, err
	}
	text, err := vm.unicode(ctx, args.at(1))
	if err != nil {
		return 0, err
	}
	lower, ok := web.HeaderName(string(name), string(text))
	if !ok {
		return vm.state.undefined, nil
	}
	return vm.newString(ctx, []byte(lower))
}

// byteOrderMark is left out of a text that begins with it.
var byteOrderMark = []byte("\ufeff")

// hostText is text(bytes): a promise that is settled with the text of a Uint8Array in UTF-8; undefined when that is too long, or malformed, for one step.
func hostText(ctx context.Context, vm *VM, args arguments) (value, error) {
	ptr, p, err := vm.bytes(ctx, args.at(0))
	if err != nil || len(p) > maxDecode || !utf8.Valid(p) {
		return vm.state.undefined, err
	}
	if bytes.HasPrefix(p, byteOrderMark) {
		ptr, p = ptr+uint32(len(byteOrderMark)), p[len(byteOrderMark):]
	}
	var text value
	if len(p) == 0 {
		text, err = vm.newString(ctx, nil)
	} else {
		var v uint64
		v, err = vm.call(ctx, fnNewString, uint64(vm.state.context), uint64(ptr), uint64(len(p)))
		text = value(v)
	}
	if err != nil || text.tag() == vm.state.tags.exception {
		return text, err
	}
	promise, err := vm.call(ctx, fnNewSettledPromise, uint64(vm.state.context), 0, uint64(text))
	if err != nil {
		return 0, err
	}
	return value(promise), vm.free(ctx, text)
}

// hostJSON is json(bytes): the value of a JSON text in a Uint8Array in UTF-8; undefined when that is too long, or malformed, for one step, or QuickJS is
// parsing one: an exception of the parser can call the script, for Error.prepareStackTrace.
func hostJSON(ctx context.Context, vm *VM, args arguments) (value, error) {
	_, p, err := vm.bytes(ctx, args.at(0))
	if err != nil || len(p) > maxDecode || !utf8.Valid(p) || vm.running&(1<<fnParseJSON) != 0 {
		return vm.state.undefined, err
	}
	return vm.parse(ctx, bytes.Clone(bytes.TrimPrefix(p, byteOrderMark)))
}

// answered settles the promise of a use.
func (vm *VM) answered(ctx context.Context, a Answer) error {
	b, ok := vm.begun[a.Number]
	if !ok {
		return nil
	}
	delete(vm.begun, a.Number)
	if !utf8.Valid(a.JSON) {
		return errors.New("BUG: an answer to a use of a grant is no text")
	}
	v, err := vm.outcome(ctx, a, b)
	if err != nil {
		return err
	}
	settle := b.resolve
	if a.Failed {
		settle = b.reject
	}
	if v.tag() == vm.state.tags.exception {
		thrown, err := vm.call(ctx, fnException, uint64(vm.state.context))
		if err != nil {
			return err
		}
		v, settle = value(thrown), b.reject
	}
	if _, err := vm.apply(ctx, settle, v); err != nil {
		return err
	}
	// Elsewhere nothing is freed that the host has made: an event's memory goes as a whole. But a function may take answers without end.
	return vm.free(ctx, v, b.resolve, b.reject)
}

// free gives up values that the host holds.
func (vm *VM) free(ctx context.Context, values ...value) error {
	for _, v := range values {
		if _, err := vm.call(ctx, fnFreeValue, uint64(vm.state.context), uint64(v)); err != nil {
			return err
		}
	}
	return nil
}

// outcome returns what the promise of a use is settled with, or an exception.
func (vm *VM) outcome(ctx context.Context, a Answer, b begun) (value, error) {
	exception := vm.state.tags.exception
	if b.http && !a.Failed {
		return vm.respond(ctx, a, b.asked)
	}
	text := a.JSON
	if len(text) == 0 {
		text = []byte("null")
	}
	v, err := vm.parse(ctx, text)
	if err != nil || v.tag() == exception {
		return v, err
	}
	if a.Failed {
		return vm.finished(ctx, vm.state.refused, v, vm.state.undefined)
	}
	switch tag := b.finish.tag(); {
	case tag == vm.state.tags.undefined:
		return v, nil
	case tag == vm.state.tags.text:
		return vm.memberOf(ctx, v, b.finish, a.Body)
	}
	body := vm.state.undefined
	if len(a.Body) > 0 {
		if body, err = vm.newBytes(ctx, a.Body); err != nil || body.tag() == exception {
			return body, err
		}
	}
	return vm.finished(ctx, b.finish, v, body)
}

// finished returns what a function of the prelude makes of values, and frees these.
func (vm *VM) finished(ctx context.Context, fn value, args ...value) (value, error) {
	made, err := vm.try(ctx, fn, args...)
	if err != nil {
		return 0, err
	}
	return made, vm.free(ctx, args...)
}

// memberOf returns a member of an object, or the bytes where it has none, and frees the object; null has null.
func (vm *VM) memberOf(ctx context.Context, object, name value, body []byte) (value, error) {
	if object.tag() == vm.state.tags.null {
		return object, nil
	}
	atom, err := vm.call(ctx, fnNewAtom, uint64(vm.state.context), uint64(name))
	if err != nil {
		return 0, err
	}
	v, err := vm.call(ctx, fnProperty, uint64(vm.state.context), uint64(object), atom)
	if err != nil {
		return 0, err
	}
	if _, err := vm.call(ctx, fnFreeAtom, uint64(vm.state.context), atom); err != nil {
		return 0, err
	}
	if err := vm.free(ctx, object); err != nil {
		return 0, err
	}
	if value(v) == vm.state.undefined {
		return vm.newBytes(ctx, body)
	}
	return value(v), nil
}

// respond returns the Response of what an http grant answers.
func (vm *VM) respond(ctx context.Context, a Answer, asked string) (value, error) {
	exception := vm.state.tags.exception
	head, err := vm.newString(ctx, a.JSON)
	if err != nil || head.tag() == exception {
		return head, err
	}
	url, body := vm.state.undefined, vm.state.undefined
	if asked != "" {
		if url, err = vm.newString(ctx, []byte(asked)); err != nil || url.tag() == exception {
			return url, err
		}
	}
	if len(a.Body) > 0 {
		if body, err = vm.newBytes(ctx, a.Body); err != nil || body.tag() == exception {
			return body, err
		}
	}
	return vm.finished(ctx, vm.state.respond, vm.integer(statusOf(a.JSON)), head, url, body)
}

// statusOf returns the status in an answer of an http grant.
func statusOf(text []byte) int32 {
	if rest, ok := bytes.CutPrefix(text, []byte(`{"status":`)); ok {
		if digits, _, ok := bytes.Cut(rest[:min(len(rest), 8)], []byte(",")); ok {
			if n, err := strconv.ParseInt(string(digits), 10, 32); err == nil {
				return int32(n)
			}
		}
	}
	var head struct {
		Status int32 `json:"status"`
	}
	_ = json.Unmarshal(text, &head) // then it is 0, which is no status
	return head.Status
}
