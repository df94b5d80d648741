package web_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"sallyport/internal/cell/js/web"
)

func transcode(src string, from web.Encoding) (string, bool) {
	size, malformed := web.Transcode(nil, []byte(src), from)
	dst := make([]byte, size)
	web.Transcode(dst, []byte(src), from)
	return string(dst), malformed
}

func TestTranscode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from      web.Encoding
		src, want string
		malformed bool
	}{
		{web.UTF8, "", "", false},
		{web.UTF8, "aé€🦊", "aé€🦊", false},
		{web.UTF8, "\xff", "�", true},
		{web.UTF8, "\xc0\x80", "��", true},
		{web.UTF8, "\xe0\x80\x80", "���", true},
		{web.UTF8, "\xed\xa0\x80", "���", true},
		{web.UTF8, "\xf5\x80", "��", true},
		{web.UTF8, "a\xe2\x82b", "a�b", true},
		{web.UTF8, "\xf0\x9f\xa6", "�", true},
		{web.UTF8, "\xf0\x9f\xa6\xf0\x9f\xa6\x8a", "�🦊", true},
		{web.UTF8, "\xf4\x90\x80\x80", "����", true},
		{web.UTF8, "\xc3\xc3\xa9", "�é", true},
		{web.UTF16LE, "a\x00\x3e\xd8\x8a\xdd", "a🦊", false},
		{web.UTF16LE, "\x3e\xd8a\x00", "�a", true},
		{web.UTF16LE, "\x8a\xdda\x00", "�a", true},
		{web.UTF16LE, "a\x00b", "a�", true},
		{web.UTF16LE, "\x3e\xd8", "�", true},
		{web.UTF16BE, "\x00a\xd8\x3e\xdd\x8a", "a🦊", false},
		{web.Windows1252, "a\x80\x81\x9f\xe9", "a€\u0081Ÿé", false},
	} {
		if got, malformed := transcode(tt.src, tt.from); got != tt.want || malformed != tt.malformed {
			t.Errorf("Transcode(%q, %d) = %q, %t; want %q, %t", tt.src, tt.from, got, malformed, tt.want, tt.malformed)
		}
	}
}

// FuzzTranscode holds that the size is the same twice, that the text is valid, and that text which is
// well formed stays what it is.
func FuzzTranscode(f *testing.F) {
	f.Add([]byte("a\xe2\x82b\xf0\x9f\xa6\x8a"), int32(0))
	f.Add([]byte("\x3e\xd8a\x00b"), int32(1))
	f.Fuzz(func(t *testing.T, src []byte, from int32) {
		size, malformed := web.Transcode(nil, src, web.Encoding(from))
		dst := make([]byte, size)
		if again, _ := web.Transcode(dst, src, web.Encoding(from)); again != size {
			t.Fatalf("%d bytes, then %d", size, again)
		}
		if !utf8.Valid(dst) {
			t.Fatalf("%q is not UTF-8", dst)
		}
		if from == int32(web.UTF8) && (malformed == utf8.Valid(src) || !malformed && !bytes.Equal(src, dst)) {
			t.Fatalf("%q becomes %q, malformed %t", src, dst, malformed)
		}
	})
}
