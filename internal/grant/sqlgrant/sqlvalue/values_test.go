package sqlvalue

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// FuzzEncode holds that whatever a function gives as a parameter is refused or becomes a value without NUL, and that lists come back
// as they were.
func FuzzEncode(f *testing.F) {
	oids := []uint32{oidText, oidInt4, oidInt8, oidNumeric, oidBool, oidBytea, oidJSONB,
		oidTimestamptz, oidTextArray, oidJSONBArray, oidInt4Array, firstUserType}
	for i, seed := range []string{`"a"`, `1`, `"9"`, `1.5`, `true`, `"AP8="`, `{"a":[1]}`, `"2030-01-02T03:04:05Z"`, `["a,b","\"}{",null,""]`, `[{"a":1}]`, `[[1],[2]]`} {
		f.Add(i, seed)
	}
	f.Fuzz(func(t *testing.T, which int, text string) {
		v := jsontext.Value(text)
		if !v.IsValid() {
			return
		}
		v = jsontext.Value(bytes.TrimSpace(v))
		oid := oids[uint(which)%uint(len(oids))]
		raw, err := Encode(oid, v)
		if err != nil || raw == nil {
			return
		}
		if forms[oid] != formJSON && oid != oidJSONBArray && bytes.IndexByte(raw, 0) >= 0 {
			t.Fatalf("encode(%d, %s) has a NUL", oid, text)
		}
		if oid != oidTextArray {
			return
		}
		back, err := Decode(nil, oid, raw)
		if err != nil {
			t.Fatalf("encode(%d, %s) = %s, which does not come back: %v", oid, text, raw, err)
		}
		again, err := Encode(oid, back)
		if err != nil || !bytes.Equal(raw, again) {
			t.Fatalf("%s became %s, and that %s (%v)", text, back, again, err)
		}
	})
}

// FuzzDecode holds that what a server sends is refused or becomes JSON.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"1", "t", "{1,NULL,\"a\"}", "[0:1]={1,2}", "\\x00ff", "2030-01-02 03:04:05.6+00", "{\"a\":1}", "{{1},{2}}", "NaN"} {
		f.Add(uint32(oidInt4Array), []byte(seed))
		f.Add(uint32(oidTimestamptz), []byte(seed))
		f.Add(uint32(oidJSONB), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, oid uint32, raw []byte) {
		out, err := Decode(nil, oid, raw)
		if err == nil && !jsontext.Value(out).IsValid(jsontext.AllowDuplicateNames(true)) {
			t.Fatalf("decode(%d, %q) = %q", oid, raw, out)
		}
	})
}
