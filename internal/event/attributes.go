package event

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// core are the attributes that CloudEvents itself defines; coreName returns an index into it.
var core = [...]string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"}

const (
	coreSpec = iota
	coreID
	coreSource
	coreType
	coreSubject
	coreTime
	coreContentType
	coreSchema
	notCore
)

// reserved are the extension attributes that only the platform sets, and the names that the JSON
// format uses for something else: an attribute called data would stand beside the event's data.
var reserved = [...]string{"authid", "authtype", "causationid", "hops", "recordedtime"}

// maxNameBytes bounds the name of an extension attribute. CloudEvents advises at most 20 but does
// not forbid more, and there are producers that take more.
const maxNameBytes = 64

func coreName(name string) int {
	switch name {
	case "specversion":
		return coreSpec
	case "id":
		return coreID
	case "source":
		return coreSource
	case "type":
		return coreType
	case "subject":
		return coreSubject
	case "time":
		return coreTime
	case "datacontenttype":
		return coreContentType
	case "dataschema":
		return coreSchema
	}
	return notCore
}

// setCore sets a core attribute of ev, or says what is wrong with its value. value is valid UTF-8;
// bytes are copied.
func setCore[T string | []byte](ev *Event, spec *string, name int, value T) (fault string) {
	if len(value) == 0 {
		return "must not be empty"
	}
	if !printable(value) {
		return "has a character that CloudEvents does not allow"
	}
	switch name {
	case coreSpec:
		if string(value) != "1.0" {
			return `only "1.0" is understood`
		}
		*spec = "1.0"
	case coreID:
		ev.ID = string(value)
	case coreSource:
		if !isReference(value) {
			return "not a URI reference (RFC 3986), such as /shop/orders"
		}
		ev.Source = string(value)
	case coreSubject:
		ev.Subject = string(value)
	case coreContentType:
		ev.DataContentType = string(value)
	case coreSchema:
		if !isReference(value) {
			return "not a URI (RFC 3986)"
		}
		ev.DataSchema = string(value)
	case coreType:
		typ, err := ident.ParseEventType(string(value))
		if err != nil {
			return "a type is 1 to 255 printable ASCII characters without space, *, quote or backslash"
		}
		ev.Type = typ
	case coreTime:
		at, ok := parseTime(string(value))
		if !ok {
			return "not a time (RFC 3339), such as 2026-01-31T12:00:00Z"
		}
		ev.Time = at
	}
	return ""
}

// parseTime parses an RFC 3339 time, strictly: the time package takes hours of one digit, commas and
// zones that no clock has. The year stays one of four digits in UTC too, so that the time can be
// written again.
func parseTime(value string) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, value)
	if err != nil || len(value) < len("2006-01-02T15:04:05Z") || value[13] != ':' || strings.Contains(value, ",") {
		return time.Time{}, false
	}
	if zone := value[len(value)-len("+00:00"):]; value[len(value)-1] != 'Z' && (zone[1:3] > "23" || zone[4:6] > "59") {
		return time.Time{}, false
	}
	at = at.UTC()
	return at, 1 <= at.Year() && at.Year() <= 9999
}

// isReference reports whether s has none of the characters that no URI has (RFC 3986, appendix A).
// Letters beyond ASCII pass: producers send them, and nothing here follows a reference.
func isReference[T string | []byte](s T) bool {
	for i := range len(s) {
		switch s[i] {
		case ' ', '"', '<', '>', '\\', '^', '`', '{', '|', '}':
			return false
		case '%':
			if _, ok := percent(s, i); !ok {
				return false
			}
		}
	}
	return true
}

// percent reads the percent-encoded byte at i.
func percent[T string | []byte](s T, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := unhex(s[i+1])
	lo, ok2 := unhex(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// printable reports whether s has only characters that CloudEvents allows in a string (1.0.2, section
// 2.2): no control characters and no noncharacters.
func printable[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return !strings.ContainsFunc(string(s[i:]), forbidden)
		}
	}
	return true
}

func forbidden(c rune) bool {
	return c < ' ' || 0x7f <= c && c <= 0x9f || 0xfdd0 <= c && c <= 0xfdef || c&0xfffe == 0xfffe
}

// missing returns the first required attribute that ev lacks, or "".
func missing(ev *Event, spec string) string {
	switch {
	case spec == "":
		return "specversion"
	case ev.ID == "":
		return "id"
	case ev.Source == "":
		return "source"
	case ev.Type == "":
		return "type"
	}
	return ""
}

// addExtension adds an extension attribute of the event at the JSON pointer at; its value is valid
// UTF-8 within its limit.
func addExtension(ev *Event, a Attribute, lim Limits, at string) error {
	at += pointer(a.Name)
	switch {
	case slices.Contains(reserved[:], a.Name):
		return problem.New(problem.Invalid, "event.reserved_extension",
			"the extension attribute %q is set by the server alone", a.Name).
			WithHint("leave it out").WithFaults(problem.Fault{Pointer: at, Detail: "set by the server alone"})
	case !isName(a.Name):
		return invalid(at, "an attribute's name is 1 to "+strconv.Itoa(maxNameBytes)+" lower-case letters and digits, and not data")
	case !printable(a.Value):
		return invalid(at, a.Name+": has a character that CloudEvents does not allow")
	case len(ev.Extensions) >= lim.Extensions:
		return invalid(at, "more than "+strconv.Itoa(lim.Extensions)+" extension attributes")
	}
	ev.Extensions = append(ev.Extensions, a)
	return nil
}

// isName reports whether name can be that of an extension attribute. "data" cannot: in the JSON format
// it would stand there twice.
func isName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || 'z' < c) && (c < '0' || '9' < c) {
			return false
		}
	}
	return name != "" && len(name) <= maxNameBytes && name != "data" && coreName(name) == notCore
}

func sortExtensions(ev *Event) {
	slices.SortFunc(ev.Extensions, func(a, b Attribute) int { return strings.Compare(a.Name, b.Name) })
}

func invalid(pointer, detail string) *problem.Error {
	return problem.New(problem.Invalid, "event.invalid", "this is not a CloudEvents 1.0 event: %s", detail).
		WithFaults(problem.Fault{Pointer: pointer, Detail: detail})
}

func tooLarge(most int) *problem.Error {
	return problem.New(problem.TooLarge, "event.too_large", "the event is larger than the limit of %d bytes", most).
		WithHint("put large content elsewhere and send a reference to it")
}

func tooLargeBatch(most int) *problem.Error {
	return problem.New(problem.TooLarge, "event.too_large", "the batch is larger than the limit of %d bytes", most).
		WithHint("send its events in several requests")
}

// pointer returns the JSON pointer of a member. A pointer into hostile data stays short.
//
// Source: RFC 6901, section 3.
func pointer(member string) string {
	member = clip(member)
	if strings.ContainsAny(member, "~/") {
		member = strings.ReplaceAll(strings.ReplaceAll(member, "~", "~0"), "/", "~1")
	}
	return "/" + member
}

// clip keeps a hostile name from filling a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
