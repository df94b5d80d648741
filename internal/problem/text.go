package problem

import (
	"bytes"
	"iter"
	"unicode/utf8"
)

// maxSource bounds, in characters, the line that is shown with a fault: a hostile text may be one
// line, and is answered with as many copies of it as it has faults.
const maxSource = 400

// Mark returns a fault at a place of a text, given in bytes, with the line it is on. What reaches over
// the end of its line is marked to that end.
func Mark(file string, text []byte, offset, length int) Fault {
	offset = min(offset, len(text))
	start := bytes.LastIndexByte(text[:offset], '\n') + 1
	line, _, _ := bytes.Cut(text[start:], []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	within := min(offset-start, len(line))
	marked := line[within:min(len(line), within+max(length, 1))]
	f := Fault{
		File: file, Line: 1 + bytes.Count(text[:start], []byte("\n")),
		Column: 1 + utf8.RuneCount(line[:within]), Length: max(1, utf8.RuneCount(marked)),
	}
	if utf8.RuneCount(line) <= maxSource {
		f.Source = string(line)
	}
	return f
}

// maxCompared bounds, in bytes, the words that Nearest compares: longer ones are no misspellings.
const maxCompared = 64

// Nearest returns the candidate that s is most likely a misspelling of, or "": one edit away, or two and
// more for longer words. Of equally near ones it is the first.
func Nearest(s string, candidates iter.Seq[string]) string {
	best, most := "", 1+len(s)/4
	if len(s) < 2 || len(s) > maxCompared {
		return ""
	}
	for c := range candidates {
		if len(c) > maxCompared || max(len(c)-len(s), len(s)-len(c)) > most {
			continue
		}
		if n := editDistance(s, c); n <= most {
			best, most = c, n-1
		}
	}
	return best
}

// editDistance is the number of edits that turn a into b, a swap of neighbours counted as one (optimal
// string alignment).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
