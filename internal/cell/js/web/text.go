package web

import (
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// Encoding is one that TextDecoder knows.
type Encoding int32

// The encodings.
const (
	UTF8 Encoding = iota
	UTF16LE
	UTF16BE
	Windows1252
)

// windows1252 has the characters of the bytes from 0x80 to 0x9f; the others have those of Latin-1.
const windows1252 = "€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ"

// Transcode writes src as UTF-8 to dst, which is nil or has exactly the size it returns, and reports whether
// something was malformed: it is replaced by U+FFFD.
func Transcode(dst, src []byte, from Encoding) (size int, malformed bool) {
	put := func(r rune) {
		if dst != nil {
			utf8.EncodeRune(dst[size:], r)
		}
		size += utf8.RuneLen(r)
	}
	switch from {
	case UTF16LE:
		malformed = fromUTF16(src, binary.LittleEndian, put)
	case UTF16BE:
		malformed = fromUTF16(src, binary.BigEndian, put)
	case Windows1252:
		high := []rune(windows1252)
		for _, b := range src {
			r := rune(b)
			if 0x80 <= b && b <= 0x9f {
				r = high[b-0x80]
			}
			put(r)
		}
	default:
		malformed = fromUTF8(src, put)
	}
	return size, malformed
}

// fromUTF8 replaces what is malformed as the Encoding Standard does: one replacement character for as
// many bytes as could begin a character.
func fromUTF8(src []byte, put func(rune)) (malformed bool) {
	for len(src) > 0 {
		r, n := utf8.DecodeRune(src)
		if r == utf8.RuneError && n == 1 {
			malformed = true
			n = beginning(src)
		}
		put(r)
		src = src[n:]
	}
	return malformed
}

// beginning returns how many bytes of malformed UTF-8 are one mistake, at least one.
func beginning(src []byte) int {
	n := 1
	for n < len(src) && n < utf8.UTFMax && couldBegin(src[:n+1]) {
		n++
	}
	return n
}

// couldBegin reports whether bytes may follow that make p, of two or three bytes, a character.
func couldBegin(p []byte) bool {
	padded := [utf8.UTFMax]byte{0x80, 0x80, 0x80, 0x80}
	copy(padded[:], p)
	for n := len(p) + 1; n <= len(padded); n++ {
		if utf8.Valid(padded[:n]) {
			return true
		}
	}
	return false
}

func fromUTF16(src []byte, order binary.ByteOrder, put func(rune)) (malformed bool) {
	for len(src) >= 2 {
		r := rune(order.Uint16(src))
		src = src[2:]
		if utf16.IsSurrogate(r) {
			pair := rune(utf8.RuneError)
			if len(src) >= 2 {
				pair = utf16.DecodeRune(r, rune(order.Uint16(src)))
			}
			if pair == utf8.RuneError {
				malformed = true
			} else {
				src = src[2:]
			}
			r = pair
		}
		put(r)
	}
	if len(src) > 0 {
		malformed = true
		put(utf8.RuneError)
	}
	return malformed
}
