package event

import (
	"bytes"
	"encoding/base64"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/problem"
)

// The JSON format puts data inside an event, and a batch puts events inside an array. Depth counts
// from the data in every mode, so that one event is accepted in all or in none.
const (
	structuredDepth = 1
	batchDepth      = 2
)

// parseStructured parses a text that is one event. Data of JSON kind aliases it.
//
// Source: CloudEvents JSON event format 1.0.2, section 3.
func parseStructured(text []byte, lim Limits) (Event, error) {
	if len(text) > lim.EventBytes {
		return Event{}, tooLarge(lim.EventBytes)
	}
	lim.Depth += structuredDepth
	c := checker{b: text, lim: lim}
	var ev Event
	if err := c.end(c.event(c.space(0), &structured{place: single, lim: &lim, ev: &ev})); err != nil {
		return Event{}, err
	}
	return ev, nil
}

// parseBatch parses a JSON array of events.
//
// Source: CloudEvents JSON event format 1.0.2, section 4.
func parseBatch(text []byte, lim Limits) ([]Event, error) {
	if len(text) > lim.BatchBytes {
		return nil, tooLargeBatch(lim.BatchBytes)
	}
	lim.Depth += batchDepth
	c := checker{b: text, lim: lim}
	i := c.space(0)
	if i == len(text) {
		return nil, c.end(c.unexpected(i, ""))
	}
	if text[i] != '[' {
		return nil, invalid("", "a batch is a JSON array of events")
	}
	evs := make([]Event, 0, min(1+len(text)/commonBytes, lim.BatchEvents))
	p := structured{lim: &lim}
	i = c.array(i, func(n, i int) int {
		if n == lim.BatchEvents {
			return c.reject(problem.New(problem.TooLarge, "event.too_many", "more than %d events in one batch", lim.BatchEvents).
				WithHint("send them in several requests"))
		}
		evs = append(evs, Event{})
		p = structured{place: n, lim: &lim, ev: &evs[n]}
		if n > 0 {
			p.before = &evs[n-1]
		}
		end := c.event(i, &p)
		if end-i > lim.EventBytes {
			return c.reject(tooLarge(lim.EventBytes).WithFaults(problem.Fault{Pointer: p.at(), Detail: "this event"}))
		}
		return end
	})
	if err := c.end(i); err != nil {
		return nil, err
	}
	if len(evs) == 0 {
		return nil, invalid("", "the batch is empty")
	}
	return evs, nil
}

// commonBytes is what an event of a batch is taken to be long at least when memory is set aside for all of
// them: shorter ones make it grow, and the request's own length bounds it.
const commonBytes = 512

// single is the place of an event that is alone in its request.
const single = -1

// structured gathers the members of one event.
type structured struct {
	place              int // in the batch, or single
	lim                *Limits
	ev                 *Event
	before             *Event // the event before it in the batch, accepted, or nil
	spec               string
	data, base64       []byte // as they stand in the request
	hasData, hasBase64 bool
}

// at returns the JSON pointer of the event in the request.
func (p *structured) at() string {
	if p.place == single {
		return ""
	}
	return "/" + strconv.Itoa(p.place)
}

// event takes the event that begins at i.
func (c *checker) event(i int, p *structured) int {
	if i == len(c.b) {
		return c.unexpected(i, "")
	}
	if c.b[i] != '{' {
		return c.reject(invalid(p.at(), "an event is a JSON object"))
	}
	end := c.object(i, p.member)
	if end < 0 {
		return -1
	}
	if err := p.finish(); err != nil {
		return c.reject(err)
	}
	return end
}

func (p *structured) fault(member, detail string) error {
	return invalid(p.at()+pointer(member), member+": "+detail)
}

// member takes one member of the event; value is checked JSON.
func (p *structured) member(name, value []byte) error {
	switch string(name) {
	case "data":
		p.data, p.hasData = value, true
		return nil
	case "data_base64":
		if value[0] != 'n' {
			p.base64, p.hasBase64 = value, true
		}
		return nil
	}
	if value[0] == 'n' {
		return nil // JSON format 2.2: null is absent
	}
	i := coreName(string(name))
	if i == notCore {
		return p.extension(clip(string(name)), value)
	}
	if value[0] != '"' {
		return p.fault(core[i], "must be a string")
	}
	text, err := p.attribute(core[i], value)
	if err != nil {
		return err
	}
	if p.asBefore(i, text) {
		return nil
	}
	if detail := setCore(p.ev, &p.spec, i, text); detail != "" {
		return p.fault(core[i], detail)
	}
	return nil
}

// asBefore takes the attribute over from the event before when it is the same there, as in most batches:
// it was checked there, and needs no memory of its own.
func (p *structured) asBefore(name int, text []byte) bool {
	if p.before == nil || len(text) == 0 {
		return false
	}
	switch name {
	case coreSource:
		return repeated(&p.ev.Source, p.before.Source, text)
	case coreType:
		return repeated(&p.ev.Type, p.before.Type, text)
	case coreSubject:
		return repeated(&p.ev.Subject, p.before.Subject, text)
	case coreContentType:
		return repeated(&p.ev.DataContentType, p.before.DataContentType, text)
	case coreSchema:
		return repeated(&p.ev.DataSchema, p.before.DataSchema, text)
	}
	return false
}

func repeated[T ~string](to *T, before T, text []byte) bool {
	if string(text) != string(before) {
		return false
	}
	*to = before
	return true
}

// extension takes an extension attribute; a name that clip has cut is too long to be one.
func (p *structured) extension(name string, value []byte) error {
	a := Attribute{Name: name}
	switch value[0] {
	case '"':
		text, err := p.attribute(name, value)
		if err != nil {
			return err
		}
		a.Value = string(text)
	case 't', 'f':
		a.Value, a.Kind = string(value), AttrBoolean
	case '{', '[':
		return p.fault(name, "an attribute is a string, a boolean or an integer")
	default:
		a.Value, a.Kind = string(value), AttrInteger
		if n, err := strconv.ParseInt(a.Value, 10, 32); err != nil || strconv.FormatInt(n, 10) != a.Value {
			return p.fault(name, "a number must be a 32-bit integer")
		}
	}
	return addExtension(p.ev, a, *p.lim, p.at())
}

// attribute returns what the JSON string value says.
func (p *structured) attribute(name string, value []byte) ([]byte, error) {
	text, err := unquote(value)
	if err != nil || len(text) > p.lim.AttributeBytes {
		return nil, p.fault(name, "longer than "+strconv.Itoa(p.lim.AttributeBytes)+" bytes")
	}
	return text, nil
}

// unquote returns what a checked JSON string says; it aliases value if nothing is escaped.
func unquote(value []byte) ([]byte, error) {
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], nil
	}
	return jsontext.AppendUnquote(nil, value)
}

// finish checks what needs the whole event, and sets its data.
func (p *structured) finish() error {
	if name := missing(p.ev, p.spec); name != "" {
		return p.fault(name, "is missing")
	}
	sortExtensions(p.ev)
	switch {
	case p.hasBase64 && p.hasData:
		return p.fault("data_base64", "an event has data or data_base64, not both")
	case p.hasBase64:
		return p.setBase64()
	case !p.hasData:
		return nil
	case p.ev.DataContentType == "" || isJSONType(p.ev.DataContentType):
		p.ev.Data, p.ev.DataKind = p.data, DataJSON
		return nil
	case p.data[0] != '"':
		return p.fault("data", "with a datacontenttype that is not JSON, data must be a string")
	}
	text, err := unquote(p.data)
	if err != nil {
		return p.fault("data", "not a JSON string")
	}
	p.setBytes(text)
	return nil
}

// setBase64 sets data that came in base64. If the content type says that it is JSON, it is checked as
// such: a function must not be handed JSON that nobody has looked at.
func (p *structured) setBase64() error {
	if p.base64[0] != '"' {
		return p.fault("data_base64", "must be a string")
	}
	text, err := unquote(p.base64)
	if err != nil || bytes.ContainsAny(text, "\r\n") { // which the decoder would skip
		return p.fault("data_base64", "not base64 (RFC 4648)")
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(data, text)
	if err != nil {
		return p.fault("data_base64", "not base64 (RFC 4648)")
	}
	p.setBytes(data[:n:n])
	if p.ev.DataKind == DataNone || !isJSONType(p.ev.DataContentType) {
		return nil
	}
	lim := *p.lim
	lim.Depth -= structuredDepth
	if p.place != single {
		lim.Depth -= batchDepth - structuredDepth
	}
	if err := CheckJSON(p.ev.Data, lim); err != nil {
		return within(err, p.at()+"/data_base64")
	}
	p.ev.DataKind = DataJSON
	return nil
}

// setBytes sets data that is not JSON. No bytes are no data: the other modes cannot tell them apart.
func (p *structured) setBytes(data []byte) {
	if len(data) > 0 {
		p.ev.Data, p.ev.DataKind = data, DataBinary
	}
}

// within puts the faults of an encoded text, to whose inside no pointer leads, at the text.
func within(err error, at string) error {
	p := *problem.From(err)
	faults := p.Faults
	p.Faults = nil
	for _, f := range faults {
		p.Faults = append(p.Faults, problem.Fault{Pointer: at, Detail: f.Detail + `, at "` + f.Pointer + `" of the decoded data`})
	}
	return &p
}
