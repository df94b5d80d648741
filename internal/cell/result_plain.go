package cell

import (
	"bytes"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// plainReader reads results in their usual form, an object with a reply and events, which is some three times as fast as
// filling in the fields of a wireResult by their tags. It words no errors: whatever is not of that form, be it allowed or
// not, is left to decodeResult, of which this MUST give the result where it gives one. The values
// are parts of the text.
type plainReader struct {
	json jsontext.Decoder
	in   bytes.Buffer
	text []byte
}

// plainReaders keeps readers for reuse. The zero value is ready.
type plainReaders struct{ pool sync.Pool }

// read returns the result in text, and whether it has the usual form.
func (p *plainReaders) read(text []byte) (wireResult, bool) {
	r, ok := p.pool.Get().(*plainReader)
	if !ok {
		r = &plainReader{}
	}
	r.text, r.in = text, *bytes.NewBuffer(text)
	r.json.Reset(&r.in)
	wire, ok := r.result()
	r.text, r.in = nil, bytes.Buffer{}
	r.json.Reset(&r.in) // it keeps nothing of this text
	p.pool.Put(r)
	return wire, ok
}

// begins reads the beginning of an object or an array.
func (r *plainReader) begins(kind jsontext.Kind) bool {
	if r.json.PeekKind() != kind {
		return false
	}
	_, err := r.json.ReadToken()
	return err == nil
}

// value reads the next value, or the name of the next member.
func (r *plainReader) value() (jsontext.Value, bool) {
	v, err := r.json.ReadValue()
	if err != nil {
		return nil, false
	}
	end := r.json.InputOffset()
	return r.text[end-int64(len(v)) : end : end], true
}

// string reads a string without escapes.
func (r *plainReader) string() (string, bool) {
	v, ok := r.value()
	if !ok || v.Kind() != jsontext.KindString || bytes.IndexByte(v, '\\') >= 0 {
		return "", false
	}
	return string(v[1 : len(v)-1]), true
}

// members reads the members of an object with read, which is given their names in quotes.
func (r *plainReader) members(read func(name jsontext.Value) bool) bool {
	if !r.begins(jsontext.KindBeginObject) {
		return false
	}
	for r.json.PeekKind() == jsontext.KindString {
		name, ok := r.value()
		if !ok || !read(name) {
			return false
		}
	}
	_, err := r.json.ReadToken() // the end, or what is wrong
	return err == nil
}

func (r *plainReader) result() (wire wireResult, ok bool) {
	ok = r.members(func(name jsontext.Value) (ok bool) {
		switch string(name) {
		case `"reply"`:
			wire.Reply, ok = r.value()
		case `"events"`:
			ok = r.events(&wire.Events)
		}
		return ok
	})
	if !ok {
		return wireResult{}, false
	}
	if _, err := r.json.ReadToken(); err != io.EOF { //nolint:errorlint // the decoder says that it returns this value itself
		return wireResult{}, false
	}
	return wire, true
}

func (r *plainReader) events(into *wireEvents) bool {
	if !r.begins(jsontext.KindBeginArray) {
		return false
	}
	for r.json.PeekKind() == jsontext.KindBeginObject {
		if into.count++; into.count > MaxEvents {
			return false
		}
		var e wireEvent
		if !r.event(&e) {
			return false
		}
		into.list = append(into.list, e)
	}
	end, err := r.json.ReadToken()
	return err == nil && end.Kind() == jsontext.KindEndArray
}

func (r *plainReader) event(e *wireEvent) bool {
	return r.members(func(name jsontext.Value) (ok bool) {
		switch string(name) {
		case `"type"`:
			e.Type, ok = r.string()
		case `"id"`:
			e.ID, ok = r.string()
		case `"subject"`:
			e.Subject, ok = r.string()
		case `"datacontenttype"`:
			e.DataContentType, ok = r.string()
		case `"data"`:
			e.Data, ok = r.value()
		}
		return ok
	})
}
