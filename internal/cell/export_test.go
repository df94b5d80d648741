package cell

import (
	"bytes"
	"reflect"
)

// ReencodeTemplate parses b as a template without a base and encodes it again.
func ReencodeTemplate(b []byte) ([]byte, error) {
	t, err := parseTemplate(b, nil)
	if err != nil {
		return nil, err
	}
	return t.append(nil), nil
}

// RecodeEntry parses b as an entry of compiled code and encodes it again.
func RecodeEntry(b []byte) ([]byte, error) {
	e, err := parseEntry(b)
	if err != nil {
		return nil, err
	}
	return e.encode()
}

// TemplateHas reports whether what f's events begin with, beside what all scripts do, has part.
func TemplateHas(f *Function, part []byte) bool { return bytes.Contains(f.template.append(nil), part) }

// PlainResult parses text as a result in the usual form, and reports whether it has that and is then what it
// is for decodeResult too.
func PlainResult(text []byte) (plain, agrees bool) {
	var readers plainReaders
	wire, plain := readers.read(text)
	if !plain {
		return false, wire.Reply == nil && wire.Events.list == nil
	}
	want, err := decodeResult(text)
	return true, err == nil && reflect.DeepEqual(wire, want)
}
