package guest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Event is the event to handle, with the attributes of CloudEvents 1.0.
type Event struct {
	ID              string
	Source          string
	Type            string
	Subject         string
	Time            time.Time // zero when the event has none
	DataContentType string
	DataSchema      string
	// Data is the JSON text of the data, or, when Binary is true, the data itself.
	Data   []byte
	Binary bool
	// Extensions holds the JSON text of every other attribute, by name; nil when there is none.
	Extensions map[string]json.RawMessage
}

// Decode decodes the data, which must be JSON, into the value that v points to.
func (e *Event) Decode(v any) error {
	if e.Binary {
		return fmt.Errorf("the data of event %s is binary", e.ID)
	}
	if err := json.Unmarshal(e.Data, v); err != nil {
		return fmt.Errorf("decode the data of event %s: %w", e.ID, err)
	}
	return nil
}

// parseEvent parses the JSON format of CloudEvents, which it keeps parts of. The host has checked
// the text, so this finds the members in one pass and leaves what is inside data to Decode.
func parseEvent(text []byte) (*Event, error) {
	e := &Event{}
	s := scanner{text: text}
	if !s.take('{') {
		return nil, errors.New("parse the event: it is no JSON object")
	}
	for !s.take('}') {
		name, err := s.value().name()
		if err != nil || !s.take(':') {
			return nil, fmt.Errorf("parse the event: no member at byte %d", s.at)
		}
		if err := e.set(name, s.value()); err != nil {
			return nil, fmt.Errorf("parse the event's %s: %w", name, err)
		}
		if !s.take(',') && s.peek() != '}' {
			return nil, fmt.Errorf("parse the event: it ends or has no comma at byte %d", s.at)
		}
	}
	if s.peek() != 0 {
		return nil, fmt.Errorf("parse the event: there is more after it, at byte %d", s.at)
	}
	return e, nil
}

// set sets the attribute of this name to this value.
func (e *Event) set(name []byte, v value) (err error) {
	if len(v.text) == 0 {
		return errors.New("it has no value")
	}
	switch string(name) {
	case "id":
		e.ID, err = v.string()
	case "source":
		e.Source, err = v.string()
	case "type":
		e.Type, err = v.string()
	case "subject":
		e.Subject, err = v.string()
	case "datacontenttype":
		e.DataContentType, err = v.string()
	case "dataschema":
		e.DataSchema, err = v.string()
	case "time":
		var text string
		if text, err = v.string(); err == nil && text != "" {
			e.Time, err = time.Parse(time.RFC3339, text)
		}
	case "data":
		e.Data = v.text
	case "data_base64":
		var text string
		if text, err = v.string(); err == nil {
			e.Binary = true
			e.Data, err = base64.StdEncoding.DecodeString(text)
		}
	case "specversion": // always 1.0
	default:
		if e.Extensions == nil {
			e.Extensions = map[string]json.RawMessage{}
		}
		e.Extensions[string(name)] = v.text
	}
	return err
}

// value is the text of a JSON value; it is empty when there is none.
type value struct {
	text  []byte
	plain bool // a string without escapes
}

// string returns a string; null is the empty one.
func (v value) string() (s string, err error) {
	if v.plain {
		return string(v.text[1 : len(v.text)-1]), nil
	}
	err = json.Unmarshal(v.text, &s)
	return s, err
}

// name returns a string as bytes, which are those of the event if they can be.
func (v value) name() ([]byte, error) {
	if v.plain {
		return v.text[1 : len(v.text)-1], nil
	}
	s, err := v.string()
	return []byte(s), err
}

// scanner finds the values in a JSON text.
type scanner struct {
	text []byte
	at   int
}

// peek skips white space and returns the byte after it, or 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.text); s.at++ {
		if c := s.text[s.at]; c > ' ' {
			return c
		}
	}
	return 0
}

// take takes c, if that is what comes.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

// value takes one value. What is inside an array or an object is not looked at, but for its strings
// and brackets.
func (s *scanner) value() value {
	first := s.peek()
	start := s.at
	switch first {
	case '"':
		end, plain := skipString(s.text, start)
		s.at = end
		return value{s.text[start:end:end], plain}
	case '{', '[':
		s.at = skipNested(s.text, start)
	default:
		for s.at < len(s.text) && isScalar(s.text[s.at]) {
			s.at++
		}
	}
	return value{text: s.text[start:s.at:s.at]}
}

// isScalar reports whether c can be in a number, true, false or null.
func isScalar(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '+' || c == '.' || c == 'E'
}

// skipString returns the end of the string that begins at start, or of the text if it has none, and
// whether the string ends and has no escapes.
func skipString(text []byte, start int) (end int, plain bool) {
	plain = true
	for i := start + 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i + 1, plain
		case '\\':
			plain = false
			i++
		}
	}
	return len(text), false
}

// skipNested returns the end of the array or object that begins at start, or of the text if it has
// none.
func skipNested(text []byte, start int) int {
	depth := 0
	for i := start; i < len(text); i++ {
		switch text[i] {
		case '"':
			end, _ := skipString(text, i)
			i = end - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(text)
}
