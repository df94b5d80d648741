package event

import (
	"encoding/base64"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendJSON appends the event in the CloudEvents JSON format. Data of JSON kind stands in it byte
// for byte, other data in base64. It is what functions receive.
func AppendJSON(dst []byte, e *Event) []byte {
	dst = append(dst, `{"specversion":"1.0"`...)
	dst = appendMember(dst, "id", e.ID)
	dst = appendMember(dst, "source", e.Source)
	dst = appendMember(dst, "type", string(e.Type))
	if e.Subject != "" {
		dst = appendMember(dst, "subject", e.Subject)
	}
	if e.DataContentType != "" {
		dst = appendMember(dst, "datacontenttype", e.DataContentType)
	}
	if e.DataSchema != "" {
		dst = appendMember(dst, "dataschema", e.DataSchema)
	}
	if !e.Time.IsZero() {
		dst = append(dst, `,"time":"`...)
		dst = e.Time.AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	for i := range e.Extensions {
		a := &e.Extensions[i]
		if a.Kind == AttrString {
			dst = appendMember(dst, a.Name, a.Value)
			continue
		}
		dst = append(dst, `,"`...)
		dst = append(dst, a.Name...)
		dst = append(dst, `":`...)
		dst = append(dst, a.Value...)
	}
	switch e.DataKind {
	case DataJSON:
		dst = append(dst, `,"data":`...)
		dst = append(dst, e.Data...)
	case DataBinary:
		dst = append(dst, `,"data_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.Data)
		dst = append(dst, '"')
	case DataNone:
	}
	return append(dst, '}')
}

func appendMember(dst []byte, name, value string) []byte {
	dst = append(dst, `,"`...)
	dst = append(dst, name...)
	dst = append(dst, `":`...)
	// An error is invalid UTF-8, which was replaced; parsers refuse it before it gets here.
	dst, _ = jsontext.AppendQuote(dst, value)
	return dst
}
