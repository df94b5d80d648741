package event

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"sallyport/internal/problem"
)

// Mode is the content mode of the CloudEvents HTTP binding.
type Mode uint8

// The content modes.
const (
	ModeBinary Mode = iota + 1
	ModeStructured
	ModeBatch
)

// The media types of the CloudEvents JSON format.
const (
	typeStructured = "application/cloudevents+json"
	typeBatch      = "application/cloudevents-batch+json"
)

const headerPrefix = "Ce-"

// ParseHTTP parses the events of one request; body is the whole of it. The content type decides the
// mode. Event data may alias body. The error is a problem that names the header or the place.
//
// Source: CloudEvents HTTP protocol binding 1.0.2, section 3.
func ParseHTTP(h http.Header, body []byte, lim Limits) ([]Event, Mode, error) {
	values := h["Content-Type"]
	if len(values) > 1 {
		return nil, 0, unsupported("the request has more than one Content-Type")
	}
	contentType := ""
	if len(values) == 1 {
		contentType = values[0]
	}
	media, err := mediaType(contentType)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case media == typeStructured:
		ev, err := parseStructured(body, lim)
		return one(ev, ModeStructured, err)
	case media == typeBatch:
		evs, err := parseBatch(body, lim)
		if err != nil {
			return nil, 0, err
		}
		return evs, ModeBatch, nil
	case strings.HasPrefix(media, "application/cloudevents"):
		return nil, 0, unsupported("events in the format %q are not understood", clip(media))
	}
	ev, err := parseBinary(h, contentType, media, body, lim)
	return one(ev, ModeBinary, err)
}

func one(ev Event, mode Mode, err error) ([]Event, Mode, error) {
	if err != nil {
		return nil, 0, err
	}
	return []Event{ev}, mode, nil
}

func unsupported(format string, args ...any) *problem.Error {
	return problem.New(problem.Unsupported, "event.unsupported_format", format, args...).
		WithHint("send application/cloudevents+json, application/cloudevents-batch+json, or binary mode with the data's own type")
}

// mediaType returns the media type without its parameters. The common ones are not parsed.
func mediaType(contentType string) (string, error) {
	switch contentType {
	case "", "application/json", typeStructured, typeBatch:
		return contentType, nil
	case "application/json; charset=utf-8":
		return "application/json", nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", unsupported("the Content-Type is malformed")
	}
	// Text in another encoding would be read as what it is not; JSON has no other (RFC 8259, 8.1).
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") && (isJSONType(media) || strings.HasPrefix(media, "application/cloudevents")) {
		return "", unsupported("JSON must be UTF-8, not %q", clip(cs))
	}
	return media, nil
}

// isJSONType reports whether a content type is JSON: application/json, text/json or any +json.
func isJSONType(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

// parseBinary parses an event whose attributes are headers and whose data is the body.
func parseBinary(h http.Header, contentType, media string, body []byte, lim Limits) (Event, error) {
	var ev Event
	if len(body) > lim.EventBytes {
		return ev, tooLarge(lim.EventBytes)
	}
	if len(h["Ce-Specversion"]) == 0 {
		return ev, problem.New(problem.Unsupported, "event.unsupported_format", "this request is not a CloudEvent").
			WithHint("set Content-Type: application/cloudevents+json, or the headers ce-specversion, ce-id, ce-source and ce-type")
	}
	spec, size := "", len(body)+len(contentType)
	if contentType != "" {
		if fault := headerValue(contentType, lim); fault != "" {
			return ev, headerFault("Content-Type", fault)
		}
		if fault := setCore(&ev, &spec, coreContentType, contentType); fault != "" {
			return ev, headerFault("Content-Type", fault)
		}
	}
	for header, values := range h {
		if !strings.HasPrefix(header, headerPrefix) {
			continue
		}
		if err := setHeader(&ev, &spec, header[len(headerPrefix):], values, lim); err != nil {
			return ev, err
		}
		size += len(header) - len(headerPrefix) + len(values[0])
	}
	if name := missing(&ev, spec); name != "" {
		return ev, headerFault("ce-"+name, "is missing")
	}
	if size > lim.EventBytes {
		return ev, tooLarge(lim.EventBytes)
	}
	sortExtensions(&ev)
	if len(body) == 0 {
		return ev, nil
	}
	ev.Data, ev.DataKind = body, DataBinary
	if isJSONType(media) {
		if err := CheckJSON(body, lim); err != nil {
			return ev, err
		}
		ev.DataKind = DataJSON
	}
	return ev, nil
}

func headerFault(name, detail string) error {
	return problem.New(problem.Invalid, "event.invalid", "this is not a CloudEvents 1.0 event: header %s: %s", clip(name), detail)
}

// setHeader sets the attribute that a header carries; name is the header's, without its prefix, as
// net/http writes it: with an initial capital.
func setHeader(ev *Event, spec *string, name string, values []string, lim Limits) error {
	i := coreHeader(name)
	if i == notCore {
		name = strings.ToLower(name)
	} else {
		name = core[i]
	}
	header := "ce-" + name
	if len(values) != 1 {
		return headerFault(header, "sent more than once")
	}
	if i == coreContentType {
		return headerFault(header, "in binary mode the data's type is the Content-Type")
	}
	value, ok := unescapeHeader(values[0])
	if !ok {
		return headerFault(header, "not percent-encoded UTF-8")
	}
	if fault := headerValue(value, lim); fault != "" {
		return headerFault(header, fault)
	}
	if i == notCore {
		if err := addExtension(ev, Attribute{Name: name, Value: value}, lim, ""); err != nil {
			p := *problem.From(err)
			p.Faults = nil // a pointer would lead into the body
			p.Public += ", header " + clip(header)
			return &p
		}
		return nil
	}
	if fault := setCore(ev, spec, i, value); fault != "" {
		return headerFault(header, fault)
	}
	return nil
}

// coreHeader is coreName for the form that net/http gives a header's name.
func coreHeader(name string) int {
	switch name {
	case "Specversion":
		return coreSpec
	case "Id":
		return coreID
	case "Source":
		return coreSource
	case "Type":
		return coreType
	case "Subject":
		return coreSubject
	case "Time":
		return coreTime
	case "Datacontenttype":
		return coreContentType
	case "Dataschema":
		return coreSchema
	}
	return notCore
}

// headerValue says what is wrong with a value of whatever attribute.
func headerValue(value string, lim Limits) (fault string) {
	switch {
	case len(value) > lim.AttributeBytes:
		return "longer than " + strconv.Itoa(lim.AttributeBytes) + " bytes"
	case !utf8.ValidString(value):
		return "not UTF-8"
	}
	return ""
}

// unescapeHeader undoes the escapes of a header value: first double quotes, which older producers
// send, then percent-encoding.
//
// Source: CloudEvents HTTP protocol binding 1.0.2, section 3.1.3.2.
func unescapeHeader(s string) (string, bool) {
	if strings.IndexByte(s, '"') >= 0 {
		plain, ok := unquoteHeader(s)
		if !ok {
			return "", false
		}
		s = plain
	}
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			var ok bool
			if c, ok = percent(s, i); !ok {
				return "", false
			}
			i += 2
		}
		out = append(out, c)
	}
	return string(out), true
}

// unquoteHeader takes the double quotes away and what they escape (RFC 7230, section 3.2.6).
func unquoteHeader(s string) (string, bool) {
	out, quoted := make([]byte, 0, len(s)), false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
			continue
		case s[i] == '\\' && quoted:
			if i++; i == len(s) {
				return "", false
			}
		}
		out = append(out, s[i])
	}
	return string(out), !quoted
}
