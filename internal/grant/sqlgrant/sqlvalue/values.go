// Package sqlvalue turns JSON values into the text form of PostgreSQL and back, by the types of the database.
//
// It is pure. Callers: sqlgrant.
package sqlvalue

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The numbers of PostgreSQL's own types, which never change.
const (
	oidBool             = 16
	oidBytea            = 17
	oidInt8             = 20
	oidInt2             = 21
	oidInt4             = 23
	oidText             = 25
	oidOID              = 26
	oidJSON             = 114
	oidJSONArray        = 199
	oidFloat4           = 700
	oidFloat8           = 701
	oidBoolArray        = 1000
	oidByteaArray       = 1001
	oidInt2Array        = 1005
	oidInt4Array        = 1007
	oidTextArray        = 1009
	oidBPCharArray      = 1014
	oidVarcharArray     = 1015
	oidInt8Array        = 1016
	oidFloat4Array      = 1021
	oidFloat8Array      = 1022
	oidBPChar           = 1042
	oidVarchar          = 1043
	oidDate             = 1082
	oidTimestamp        = 1114
	oidTimestampArray   = 1115
	oidDateArray        = 1182
	oidTimestamptz      = 1184
	oidTimestamptzArray = 1185
	oidNumericArray     = 1231
	oidNumeric          = 1700
	oidUUID             = 2950
	oidUUIDArray        = 2951
	oidJSONB            = 3802
	oidJSONBArray       = 3807
)

// form is how values of a type of PostgreSQL look in JSON.
type form uint8

const (
	formText    form = iota // a text; the server reads and writes it
	formNumber              // integers and floating point that a JSON number holds exactly
	formDigits              // bigint and numeric, which it does not: a text of digits
	formTruth               // true and false
	formJSON                // itself
	formBytes               // base64
	formInstant             // RFC 3339, in UTC
	formMoment              // RFC 3339 without a zone
)

// forms are the forms of the types that are not texts.
var forms = map[uint32]form{
	oidInt2: formNumber, oidInt4: formNumber, oidOID: formNumber, oidFloat4: formNumber, oidFloat8: formNumber,
	oidInt8: formDigits, oidNumeric: formDigits,
	oidBool: formTruth, oidJSON: formJSON, oidJSONB: formJSON, oidBytea: formBytes,
	oidTimestamptz: formInstant, oidTimestamp: formMoment,
}

// arrays are the types whose values are lists, with the type of an element.
var arrays = map[uint32]uint32{
	oidBoolArray: oidBool, oidInt2Array: oidInt2, oidInt4Array: oidInt4, oidInt8Array: oidInt8,
	oidFloat4Array: oidFloat4, oidFloat8Array: oidFloat8, oidNumericArray: oidNumeric,
	oidTextArray: oidText, oidVarcharArray: oidVarchar, oidBPCharArray: oidBPChar,
	oidUUIDArray: oidUUID, oidByteaArray: oidBytea, oidJSONArray: oidJSON,
	oidJSONBArray: oidJSONB, oidDateArray: oidDate, oidTimestampArray: oidTimestamp,
	oidTimestamptzArray: oidTimestamptz,
}

// maxArrayDepth is PostgreSQL's own bound on the dimensions of an array.
const maxArrayDepth = 6

// Encode returns a JSON value in the form that the server reads for a type, and nil for null.
func Encode(oid uint32, v jsontext.Value) ([]byte, error) {
	if v.Kind() == 'n' {
		return nil, nil
	}
	if element, ok := arrays[oid]; ok {
		if v.Kind() != '[' {
			return nil, wants("a list", v)
		}
		return appendArray(nil, element, v, 1)
	}
	switch forms[oid] {
	case formJSON:
		return v, nil
	case formTruth:
		if v.Kind() == 't' || v.Kind() == 'f' {
			return v, nil
		}
		return nil, wants("true or false", v)
	case formNumber, formDigits:
		return number(oid, v)
	case formBytes:
		raw, err := DecodeBytes(v)
		if err != nil {
			return nil, err
		}
		return append([]byte(`\x`), hex.EncodeToString(raw)...), nil
	case formInstant:
		s, err := Text(v)
		if err == nil && !instant(s) {
			err = errors.New("wants a time such as 2030-01-02T03:04:05Z")
		}
		return []byte(s), err
	}
	if k := v.Kind(); oid >= firstUserType && (k == '0' || k == 't' || k == 'f') {
		return v, nil // of a domain, whose rules are the server's
	}
	s, err := Text(v)
	return []byte(s), err
}

// firstUserType is the first number of a type that is not PostgreSQL's own.
const firstUserType = 16384

// instant reports whether s is a time with a zone, or one of the ends of time.
func instant(s string) bool {
	_, err := time.Parse(time.RFC3339Nano, s)
	return err == nil || s == "infinity" || s == "-infinity"
}

// number takes a number, or a text of one: that is how functions write what a JSON number does not hold.
func number(oid uint32, v jsontext.Value) ([]byte, error) {
	s := string(v)
	if v.Kind() == '"' {
		var err error
		if s, err = Text(v); err != nil {
			return nil, err
		}
	} else if v.Kind() != '0' {
		return nil, wants("a number", v)
	}
	bits := map[uint32]int{oidInt2: 16, oidInt4: 32, oidInt8: 64}[oid]
	if bits > 0 {
		if _, err := strconv.ParseInt(s, 10, bits); err != nil {
			return nil, fmt.Errorf("wants an integer of %d bits", bits)
		}
	} else if !decimal.MatchString(s) && s != "NaN" && s != "Infinity" && s != "-Infinity" {
		return nil, errors.New("wants a number")
	}
	return []byte(s), nil
}

var decimal = regexp.MustCompile(`^[+-]?\d+(\.\d+)?([eE][+-]?\d+)?$`)

// Text takes a text without NUL, which no database keeps.
func Text(v jsontext.Value) (string, error) {
	var s string
	if v.Kind() != '"' {
		return "", wants("a text", v)
	}
	if err := json.Unmarshal(v, &s); err != nil {
		return "", errors.New("wants a text of Unicode characters")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("a text with a NUL character cannot be stored")
	}
	return s, nil
}

// BytesKey is the member of the object that stands for bytes: {"$bytes": "<base64>"}.
const BytesKey = "$bytes"

// DecodeBytes takes bytes as a base64 text, or as the object that stands for bytes.
func DecodeBytes(v jsontext.Value) ([]byte, error) {
	if v.Kind() == '{' {
		var o map[string]jsontext.Value
		if err := json.Unmarshal(v, &o); err != nil || len(o) != 1 || o[BytesKey] == nil {
			return nil, wants("bytes as a text in base64", v)
		}
		v = o[BytesKey]
	}
	s, err := Text(v)
	if err != nil {
		return nil, wants("bytes as a text in base64", v)
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("wants bytes as a text in base64")
	}
	return raw, nil
}

// wants says what a parameter should be. It names the kind of what it is, not the value.
func wants(what string, v jsontext.Value) error {
	kinds := map[jsontext.Kind]string{'n': "null", 't': "true", 'f': "false", '"': "a text", '0': "a number", '{': "an object", '[': "a list"}
	return fmt.Errorf("wants %s, not %s", what, kinds[v.Kind()])
}

// appendArray appends a list in PostgreSQL's form, every element in quotes.
func appendArray(dst []byte, element uint32, v jsontext.Value, depth int) ([]byte, error) {
	if depth > maxArrayDepth {
		return nil, fmt.Errorf("lists are nested deeper than %d", maxArrayDepth)
	}
	var items []jsontext.Value
	if err := json.Unmarshal(v, &items); err != nil {
		return nil, errors.New("wants a list")
	}
	dst = append(dst, '{')
	for i, item := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if item.Kind() == '[' && forms[element] != formJSON {
			if dst, err = appendArray(dst, element, item, depth+1); err != nil {
				return nil, err
			}
			continue
		}
		raw, err := Encode(element, item)
		if err != nil {
			return nil, fmt.Errorf("element %d %w", i+1, err)
		}
		dst = appendElement(dst, raw)
	}
	return append(dst, '}'), nil
}

func appendElement(dst, raw []byte) []byte {
	if raw == nil {
		return append(dst, "NULL"...)
	}
	dst = append(dst, '"')
	for _, c := range raw {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// Decode appends a value that the server sent, in its text form, as JSON; raw is nil for null.
func Decode(dst []byte, oid uint32, raw []byte) ([]byte, error) {
	if raw == nil {
		return append(dst, "null"...), nil
	}
	if element, ok := arrays[oid]; ok {
		return decodeArray(dst, element, raw)
	}
	switch forms[oid] {
	case formNumber:
		if jsontext.Value(raw).IsValid() && jsontext.Value(raw).Kind() == '0' {
			return append(dst, raw...), nil
		}
	case formTruth:
		switch string(raw) {
		case "t":
			return append(dst, "true"...), nil
		case "f":
			return append(dst, "false"...), nil
		}
		return dst, errors.New("not true or false")
	case formJSON:
		if !jsontext.Value(raw).IsValid(jsontext.AllowDuplicateNames(true)) {
			return dst, errors.New("not JSON")
		}
		return append(dst, raw...), nil
	case formBytes:
		bytes, err := hex.DecodeString(strings.TrimPrefix(string(raw), `\x`))
		if err != nil {
			return dst, errors.New("not bytes in hex")
		}
		return AppendBytes(dst, bytes), nil
	case formInstant:
		if t, err := time.Parse("2006-01-02 15:04:05.999999999Z07", string(raw)); err == nil {
			return AppendText(dst, t.UTC().AppendFormat(nil, time.RFC3339Nano)), nil
		}
	case formMoment:
		if t, err := time.Parse("2006-01-02 15:04:05.999999999", string(raw)); err == nil {
			return AppendText(dst, t.AppendFormat(nil, "2006-01-02T15:04:05.999999999")), nil
		}
	}
	return AppendText(dst, raw), nil
}

// AppendBytes appends bytes as a text in base64.
func AppendBytes(dst, raw []byte) []byte {
	dst = append(dst, '"')
	return append(base64.StdEncoding.AppendEncode(dst, raw), '"')
}

// decodeArray appends a list in PostgreSQL's form as JSON.
func decodeArray(dst []byte, element uint32, raw []byte) ([]byte, error) {
	if len(raw) > 0 && raw[0] == '[' { // bounds, such as [0:2]={…}: where the list begins counting
		_, after, ok := strings.Cut(string(raw), "=")
		if !ok {
			return dst, errArray
		}
		raw = []byte(after)
	}
	dst, rest, err := appendList(dst, element, raw, 1)
	if err == nil && len(rest) > 0 {
		err = errArray
	}
	return dst, err
}

var errArray = errors.New("not a list")

func appendList(dst []byte, element uint32, raw []byte, depth int) (out, rest []byte, err error) {
	if len(raw) == 0 || raw[0] != '{' || depth > maxArrayDepth {
		return dst, raw, errArray
	}
	raw = raw[1:]
	dst = append(dst, '[')
	if len(raw) > 0 && raw[0] == '}' {
		return append(dst, ']'), raw[1:], nil
	}
	for {
		if len(raw) > 0 && raw[0] == '{' {
			dst, raw, err = appendList(dst, element, raw, depth+1)
		} else {
			var item []byte
			if item, raw, err = listItem(raw); err == nil {
				dst, err = Decode(dst, element, item)
			}
		}
		if err != nil || len(raw) == 0 {
			return dst, raw, errors.Join(err, errIf(len(raw) == 0, errArray))
		}
		next := raw[0]
		raw = raw[1:]
		switch next {
		case ',':
			dst = append(dst, ',')
		case '}':
			return append(dst, ']'), raw, nil
		default:
			return dst, raw, errArray
		}
	}
}

func errIf(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

// listItem reads one element, in quotes or not; it is nil for NULL.
func listItem(raw []byte) (item, rest []byte, err error) {
	if len(raw) > 0 && raw[0] == '"' {
		item = []byte{}
		for i := 1; i < len(raw); i++ {
			switch c := raw[i]; {
			case c == '"':
				return item, raw[i+1:], nil
			case c == '\\' && i+1 < len(raw):
				i++
				item = append(item, raw[i])
			default:
				item = append(item, c)
			}
		}
		return nil, raw, errArray
	}
	end := 0
	for end < len(raw) && raw[end] != ',' && raw[end] != '}' {
		end++
	}
	if end == 0 {
		return nil, raw, errArray
	}
	if strings.EqualFold(string(raw[:end]), "null") {
		return nil, raw[end:], nil
	}
	return raw[:end], raw[end:], nil
}

// AppendText appends a text as a JSON string; what is not UTF-8 in it is replaced.
func AppendText(dst, text []byte) []byte {
	out, _ := jsontext.AppendQuote(dst, text) // the error is about UTF-8, and what it returns then is valid
	return out
}
