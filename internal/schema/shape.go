package schema

import "bytes"

// maxExponent bounds the decimal exponent of a number, in data and in schemas: beyond what a double
// holds. The library computes exactly, so the eight bytes 1e999999 would cost it 20 ms, and one digit
// more a nil pointer.
const maxExponent = 400

// bytesPerUnit is how much of a string costs as much as looking at one more value: patterns and
// formats read it.
const bytesPerUnit = 16

// shape is what of a JSON text decides how much work its validation is.
type shape struct {
	// units has, by depth, how many values there are, long strings counted as several.
	units [maxDepth + 1]int
	// deep and wide say that the text is nested deeper than maxDepth, or has a number whose exponent is
	// over maxExponent.
	deep, wide bool
}

// shapeOf reads the shape of a text that is well-formed JSON; of one that is not it returns anything.
func shapeOf(text []byte) shape {
	var s shape
	s.units[0] = 1
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end := endOfString(text, i+1)
			s.units[min(depth, maxDepth)] += (end - i) / bytesPerUnit
			i = end
		case '{', '[':
			if depth++; depth > maxDepth {
				s.deep = true
				return s
			}
			s.units[depth]++
		case '}', ']':
			depth = max(0, depth-1)
		case ',':
			s.units[depth]++
		case 'e', 'E': // of a number, or the end of true and false, which no digit follows
			if exponent(text[i+1:]) > maxExponent {
				s.wide = true
			}
		}
	}
	return s
}

// endOfString returns the index of the quote that closes the string beginning at i, or len(text).
func endOfString(text []byte, i int) int {
	for i < len(text) {
		n := bytes.IndexAny(text[i:], `"\`)
		if n < 0 {
			break
		}
		if i += n; text[i] == '"' {
			return i
		}
		i += 2
	}
	return len(text)
}

// exponent returns the size of the decimal exponent at the beginning of text, at most a little over
// maxExponent.
func exponent(text []byte) int {
	if len(text) > 0 && (text[0] == '+' || text[0] == '-') {
		text = text[1:]
	}
	n := 0
	for _, c := range text {
		if c < '0' || '9' < c || n > maxExponent {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}
