package wall

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/api"
	"sallyport/internal/cell"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Bounds of what a message holds, in bytes unless they say otherwise.
const (
	maxName      = 4 << 10
	maxAttribute = 1 << 10 // as cell bounds the id, subject and content type of an event it emits
	maxCode      = 64
	maxAbout     = 4 << 10 // the methods and the URL of an http grant
	maxSentence  = 16 << 10
	maxFaults    = 16 // in number
	maxHello     = 64 << 10
	maxLoaded    = 128
	// maxResident is more than a function can take: its largest memory, that of the instances that it has at
	// least, and the code of its largest module.
	maxResident = 16 << 30
	// maxLoad is the longest module with its source map, and the rest.
	maxLoad = cell.MaxModuleBytes + cell.MaxSourceMapBytes + maxName + 256 + maxGrants*(cell.MaxGrantText+maxCode+maxAbout+16)
	// maxGrants is how many grants a function may have, in number: what a manifest may have.
	maxGrants = 128
	// maxEvent is the largest event: the largest request, and room for its attributes.
	maxEvent = 16 << 20
	// maxFailure is what a failure takes: some sentences, and places in an author's files.
	maxFailure = 256 << 10
	// lineCost is what cell counts for a line besides its bytes, and lineRoom what its last line, which
	// says that there was too much, takes beyond the limit.
	lineCost, lineRoom = 16, 256
	// maxLine is the longest line that cell cuts a log into.
	maxLine = 8 << 10
	// eventRoom is what an event takes in a result besides its texts.
	eventRoom = 64
)

// encodeLoad appends a load frame: id is that of the question, function that of the function.
func encodeLoad(b []byte, id, function uint64, spec cell.Spec, l cell.Limits) []byte {
	start := len(b)
	b = binary.AppendUvarint(begin(b, kindLoad, id), function)
	for _, v := range []int64{l.Memory, int64(l.Timeout), int64(l.CPU), int64(l.Output), int64(l.LogBytes), int64(l.Events), int64(l.HostCalls), int64(l.MinInstances)} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = append(appendText(appendText(b, spec.Name), string(spec.Kind)), spec.Digest[:]...)
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(spec.Trial)), uint64(len(spec.Grants)))
	for _, g := range spec.Grants {
		b = appendText(appendText(appendText(b, g.Name), g.Kind), g.About)
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(g.Request)), uint64(g.Reply))
	}
	b = slices.Grow(b, len(spec.SourceMap)+len(spec.Code)+2*binary.MaxVarintLen64) // once: code is long
	return end(appendText(appendText(b, spec.SourceMap), spec.Code), start)
}

func decodeLoad(body []byte) (function uint64, spec cell.Spec, l cell.Limits, err error) {
	d := decoder{left: body}
	function = d.number(math.MaxUint64)
	number := func() int64 { return int64(d.number(math.MaxInt64)) }
	l = cell.Limits{
		Memory: number(), Timeout: time.Duration(number()), CPU: time.Duration(number()), Output: int(number()),
		LogBytes: int(number()), Events: int(number()), HostCalls: int(number()), MinInstances: int(number()),
	}
	spec.Name, spec.Kind = string(d.bytes(maxName)), api.ModuleKind(d.bytes(maxCode))
	spec.Digest, spec.Trial = d.digest(), time.Duration(number())
	for n := d.number(maxGrants); n > 0 && d.err == nil; n-- {
		spec.Grants = append(spec.Grants, cell.GrantSpec{
			Name: string(d.bytes(cell.MaxGrantText)), Kind: string(d.bytes(maxCode)), About: string(d.bytes(maxAbout)),
			Request: int(d.number(math.MaxInt32)), Reply: int(d.number(math.MaxInt32)),
		})
	}
	spec.SourceMap, spec.Code = d.bytes(maxLoad), d.bytes(maxLoad)
	if len(spec.Code) == 0 {
		spec.Code = nil // the compiled form is all that was sent
	}
	return function, spec, l, d.done()
}

// encodeCompile appends a compile frame.
func encodeCompile(b []byte, id uint64, spec cell.Spec) []byte {
	start := len(b)
	b = appendText(appendText(begin(b, kindCompile, id), spec.Name), string(spec.Kind))
	code := spec.Code
	if spec.Kind == api.ModuleScript {
		code = nil // what all scripts share is made without one
	}
	return end(appendText(b, code), start)
}

func decodeCompile(body []byte) (spec cell.Spec, err error) {
	d := decoder{left: body}
	spec.Name, spec.Kind = string(d.bytes(maxName)), api.ModuleKind(d.bytes(maxCode))
	spec.Code = d.bytes(maxLoad)
	return spec, d.done()
}

// entryPieces returns the pieces of a frame of compiled code. Code is long, so it is a piece as it is, and not copied.
func entryPieces(k kind, id uint64, entries []entry) [][]byte {
	head := binary.AppendUvarint(begin(nil, k, id), uint64(len(entries)))
	out, size := [][]byte{head}, len(head)
	for _, e := range entries {
		key := binary.AppendUvarint(appendText[string](nil, e.key), uint64(len(e.value)))
		out = append(out, key, e.value)
		size += len(key) + len(e.value)
	}
	binary.LittleEndian.PutUint32(head, uint32(size-4))
	return out
}

// entries takes compiled code, which is a part of the body.
func (d *decoder) entries() (out []entry) {
	for n := d.number(maxEntries); n > 0 && d.err == nil; n-- {
		out = append(out, entry{key: string(d.bytes(maxKey)), value: d.bytes(maxCompiled)})
	}
	return out
}

func encodeLoaded(b []byte, id uint64, l loaded) []byte {
	start := len(b)
	b = binary.AppendUvarint(begin(b, kindLoaded, id), uint64(max(l.resident, 0)))
	return end(appendText(b, l.kind), start)
}

func decodeLoaded(body []byte) (l loaded, err error) {
	d := decoder{left: body}
	l.resident, l.kind = int64(d.number(maxResident)), string(d.bytes(maxCode))
	switch l.kind {
	case cell.KindJavaScript, cell.KindReactor, cell.KindCommand:
	default:
		d.fail("a function is of no kind")
	}
	return l, d.done()
}

// encodeInvoke appends an invoke frame.
func encodeInvoke(b []byte, id, function uint64, in cell.Input) []byte {
	start := len(b)
	b = begin(b, kindInvoke, id)
	b = binary.AppendUvarint(binary.AppendUvarint(b, function), uint64(in.Attempt))
	return end(appendText(appendText(b, in.EventID), in.Event), start)
}

func decodeInvoke(body []byte) (function uint64, in cell.Input, err error) {
	d := decoder{left: body}
	function = d.number(math.MaxUint64)
	in.Attempt = int(d.number(math.MaxInt32))
	in.EventID, in.Event = string(d.bytes(maxEvent)), d.bytes(maxEvent)
	return function, in, d.done()
}

func encodeEmpty(b []byte, k kind, id uint64) []byte {
	start := len(b)
	return end(begin(b, k, id), start)
}

// levels are the levels of a log line; their place is how they are sent.
func levels() [4]string {
	return [4]string{cell.LevelDebug, cell.LevelInfo, cell.LevelWarn, cell.LevelError}
}

func encodeLog(b []byte, id uint64, level, message string) []byte {
	start := len(b)
	b = begin(b, kindLog, id)
	n := 1 // info
	for i, l := range levels() {
		if l == level {
			n = i
		}
	}
	return end(append(append(b, byte(n)), message...), start)
}

func decodeLog(body []byte) (level, message string, err error) {
	if len(body) == 0 || int(body[0]) >= len(levels()) || !utf8.Valid(body[1:]) {
		return "", "", broken("a log line is malformed")
	}
	return levels()[body[0]], string(body[1:]), nil
}

func appendUsage(b []byte, u cell.Usage) []byte {
	for _, v := range []int64{int64(u.Duration), int64(u.CPU), u.MemoryPeak, u.BytesIn, u.BytesOut} {
		b = binary.AppendUvarint(b, uint64(max(v, 0)))
	}
	cold := byte(0)
	if u.Cold {
		cold = 1
	}
	return append(b, cold)
}

func (d *decoder) usage(l cell.Limits) (u cell.Usage) {
	// What the worker says of time is bounded, not believed: an hour is more than any invocation has.
	most := uint64(time.Hour)
	u.Duration, u.CPU = time.Duration(d.number(most)), time.Duration(d.number(most))
	u.MemoryPeak = min(int64(d.number(math.MaxInt64)), l.Memory)
	u.BytesIn, u.BytesOut = min(int64(d.number(math.MaxInt64)), maxEvent), min(int64(d.number(math.MaxInt64)), int64(l.Output+l.LogBytes))
	u.Cold = d.number(1) == 1
	return u
}

func encodeDone(b []byte, id uint64, u cell.Usage, r cell.Result) []byte {
	start := len(b)
	b = appendUsage(begin(b, kindDone, id), u)
	b = appendText(b, r.Reply)
	b = binary.AppendUvarint(b, uint64(len(r.Events)))
	for i := range r.Events {
		e := &r.Events[i]
		b = appendText(appendText(appendText(b, string(e.Type)), e.ID), e.Subject)
		b = appendText(appendText(appendText(b, e.DataContentType), e.Data), e.DataBase64)
	}
	return end(b, start)
}

// doneBytes is how long the body of a done frame may be.
func doneBytes(l cell.Limits) int { return l.Output + l.Events*eventRoom + eventRoom }

// decodeDone reads a result. It trusts the worker in nothing: what cell promises of a result is
// checked again.
func decodeDone(body []byte, l cell.Limits) (r cell.Result, u cell.Usage, err error) {
	d := decoder{left: body}
	u = d.usage(l)
	r.Reply = d.value(l.Output)
	if n := int(d.number(uint64(l.Events))); n > 0 {
		r.Events = make([]cell.Emitted, n)
	}
	for i := range r.Events {
		r.Events[i] = d.emitted(l)
	}
	return r, u, d.done()
}

// value takes a JSON value, or nothing.
func (d *decoder) value(most int) jsontext.Value {
	v := jsontext.Value(d.bytes(most))
	if len(v) == 0 {
		return nil
	}
	if !v.IsValid() {
		d.fail("a value is not JSON")
		return nil
	}
	return v
}

func (d *decoder) emitted(l cell.Limits) (e cell.Emitted) {
	kind, err := ident.ParseEventType(string(d.bytes(maxAttribute)))
	if err != nil && d.err == nil {
		d.fail("an event has no type: %v", err)
	}
	e.Type, e.ID, e.Subject, e.DataContentType = kind, d.attribute(), d.attribute(), d.attribute()
	e.Data = d.value(l.Output)
	if b := d.bytes(l.Output); len(b) > 0 {
		e.DataBase64 = b
	}
	if len(e.Data) > 0 && len(e.DataBase64) > 0 {
		d.fail("an event has two kinds of data")
	}
	return e
}

func (d *decoder) attribute() string {
	text := string(d.bytes(maxAttribute))
	control := func(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 }
	if !utf8.ValidString(text) || strings.ContainsFunc(text, control) {
		d.fail("an attribute holds what no attribute may")
		return ""
	}
	return text
}

// sentence takes text that a user may read.
func (d *decoder) sentence() string {
	text := d.bytes(maxSentence)
	if !utf8.Valid(text) {
		d.fail("a text is not UTF-8")
		return ""
	}
	return string(text)
}

func encodeFailed(b []byte, id uint64, u cell.Usage, err error) []byte {
	start := len(b)
	return end(appendFailure(appendUsage(begin(b, kindFailed, id), u), err), start)
}

func encodeRefused(b []byte, id uint64, err error) []byte {
	start := len(b)
	return end(appendFailure(begin(b, kindRefused, id), err), start)
}

func decodeFailed(body []byte, l cell.Limits) (u cell.Usage, failure, err error) {
	d := decoder{left: body}
	u = d.usage(l)
	failure = d.failure()
	return u, failure, d.done()
}

func decodeRefused(body []byte) (failure, err error) {
	d := decoder{left: body}
	failure = d.failure()
	return failure, d.done()
}

// appendFailure appends a problem: kind, code, sentence, hint, when to come again, places, cause, and
// what the function said.
func appendFailure(b []byte, err error) []byte {
	p := problem.From(err)
	b = append(b, byte(p.Kind))
	for _, text := range []string{p.Code, p.Public, p.Hint} {
		b = appendText(b, cut(text))
	}
	b = binary.AppendUvarint(b, uint64(max(p.RetryAfter, 0)))
	faults := p.Faults[:min(len(p.Faults), maxFaults)]
	b = binary.AppendUvarint(b, uint64(len(faults)))
	for _, f := range faults {
		for _, text := range []string{f.Pointer, f.File, f.Source, f.Detail} {
			b = appendText(b, cut(text))
		}
		for _, n := range []int{f.Line, f.Column, f.Length} {
			b = binary.AppendUvarint(b, uint64(max(n, 0)))
		}
	}
	said, ok := cell.Failed(p)
	if !ok {
		cause := ""
		if c := p.Unwrap(); c != nil {
			cause = c.Error()
		}
		return appendText(append(b, 0), cut(cause))
	}
	final := byte(0)
	if said.Final {
		final = 1
	}
	b = append(appendText(appendText(append(b, 1), cut(said.Message)), cut(said.Stack)), final)
	return binary.AppendUvarint(b, uint64(max(said.RetryAfter, 0)))
}

// cut cuts a sentence to a length at which many fit into a failure.
func cut(s string) string {
	const most = 6 << 10
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// failure takes a problem. Only those of a cell are one: a worker may not speak for other parts of
// the server.
func (d *decoder) failure() error {
	kind := problem.Kind(d.number(math.MaxUint8))
	switch kind {
	case problem.FunctionFailed, problem.Unavailable, problem.Unprocessable, problem.Invalid, problem.Timeout, problem.Internal:
	default:
		d.fail("a failure is of kind %d", kind)
	}
	code := string(d.bytes(maxCode))
	notCode := func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' && r != '.' }
	if !strings.HasPrefix(code, "cell.") && code != "internal" || strings.ContainsFunc(code, notCode) {
		d.fail("a failure is not one of a cell")
	}
	p := problem.New(kind, code, "%s", d.sentence())
	p.Hint = d.sentence()
	p.RetryAfter = time.Duration(d.number(uint64(24 * time.Hour)))
	for n := d.number(maxFaults); n > 0 && d.err == nil; n-- {
		f := problem.Fault{Pointer: d.sentence(), File: d.sentence(), Source: d.sentence(), Detail: d.sentence()}
		f.Line, f.Column, f.Length = int(d.number(math.MaxInt32)), int(d.number(math.MaxInt32)), int(d.number(math.MaxInt32))
		p.Faults = append(p.Faults, f)
	}
	if d.number(1) == 0 {
		if cause := d.sentence(); cause != "" {
			return p.WithCause(errors.New(cause))
		}
		return p
	}
	said := &cell.Failure{Message: d.sentence(), Stack: d.sentence(), Final: d.number(1) == 1}
	said.RetryAfter = time.Duration(d.number(uint64(24 * time.Hour)))
	return p.WithCause(said)
}
