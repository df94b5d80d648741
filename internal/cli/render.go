package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/problem"
)

// shown is an error as it is printed.
type shown struct {
	text, code string
	faults     []api.FieldError
	policies   []string
	reference  string // under which the server's log has the cause
	next       string // what to do now
	whole      bool   // every place is printed: they were asked for
}

func shownAnswer(p *client.Problem) shown {
	s := shown{text: p.Detail, code: p.Code, next: p.Hint, reference: p.Reference, faults: p.Errors, policies: p.Policies}
	if s.text == "" {
		s.text = p.Title
	}
	switch {
	case s.next != "":
	case p.RetryAfter > 0:
		s.next = fmt.Sprintf("try again in %s", p.RetryAfter)
	case p.EventID != "":
		s.next = "sallyport event get " + p.EventID
	}
	return s
}

func shownProblem(p *problem.Error) shown {
	s := shown{text: p.Public, code: p.Code, next: p.Hint, policies: p.Policies}
	for _, f := range p.Faults {
		s.faults = append(s.faults, fieldError(f))
	}
	if cause := p.Unwrap(); p.Kind == problem.Internal && cause != nil {
		s.text = cause.Error() // it happened on the user's own machine
	}
	return s
}

const (
	// codeColumn is where the code of an error stands when its sentence leaves room.
	codeColumn = 69
	// maxFaults bounds the places that are printed; who has more begins with the first.
	maxFaults = 20
	// sourceWindow is how many characters of a line in the source are shown: a bundled or generated
	// file may be one line.
	sourceWindow = 120
)

// render writes an error: what, with its code; where, with the line itself; what to do next; and where
// there is more to read.
//
//	error: app.toml has a fault                                          [manifest.invalid]
//	  app.toml:9:1
//	    9 | memroy = "64MiB"
//	      | ^^^^^^ unknown key "memroy"; did you mean "memory"?
//	next: correct the file
//	hint: sallyport explain manifest.invalid
func render(w io.Writer, s shown, colours bool) {
	red, bold, reset := "", "", ""
	if colours {
		red, bold, reset = "\x1b[31m", "\x1b[1m", "\x1b[0m"
	}
	text := clean(s.text)
	gap := strings.Repeat(" ", max(2, codeColumn-len("error: ")-utf8.RuneCountInString(text)))
	fmt.Fprintf(w, "%s%serror:%s %s%s%s%s[%s]\n", red, bold, reset, bold, text, reset, gap, clean(s.code))
	for i, f := range s.faults {
		if i == maxFaults && !s.whole {
			fmt.Fprintf(w, "  … and %d more\n", len(s.faults)-maxFaults)
			break
		}
		place(w, f, red, reset)
	}
	if len(s.policies) > 0 {
		fmt.Fprintf(w, "  decided by: %s\n", clean(strings.Join(s.policies, ", ")))
	}
	if s.reference != "" {
		fmt.Fprintf(w, "  reference: %s (the server's log has the cause under it)\n", clean(s.reference))
	}
	if s.next != "" {
		fmt.Fprintf(w, "next: %s\n", clean(s.next))
	}
	if s.code != "cli.usage" { // there the help says all
		fmt.Fprintf(w, "hint: sallyport explain %s\n", clean(s.code))
	}
}

// fieldError returns a fault as the API shows it.
func fieldError(f problem.Fault) api.FieldError {
	return api.FieldError{
		Pointer: f.Pointer, File: f.File, Line: f.Line, Column: f.Column, Source: f.Source, Length: f.Length, Detail: f.Detail,
	}
}

// place writes where a fault is: a JSON pointer, a file, or a line of it with the characters marked.
func place(w io.Writer, f api.FieldError, red, reset string) {
	at := f.File
	if f.Pointer != "" {
		at = strings.TrimSpace(at + " " + f.Pointer)
	}
	switch {
	case at == "":
		fmt.Fprintf(w, "  (the data): %s\n", clean(f.Detail))
		return
	case f.File == "" || f.Line <= 0:
		fmt.Fprintf(w, "  %s: %s\n", clean(at), clean(f.Detail))
		return
	}
	column := max(f.Column, 1)
	fmt.Fprintf(w, "  %s:%d:%d\n", clean(at), f.Line, column)
	if f.Source == "" {
		fmt.Fprintf(w, "    %s\n", clean(f.Detail))
		return
	}
	line, column := window([]rune(clean(f.Source)), column)
	number := strconv.Itoa(f.Line)
	length := max(1, min(f.Length, len(line)-column+1))
	fmt.Fprintf(w, "    %s | %s\n", number, string(line))
	fmt.Fprintf(w, "    %s | %s%s%s %s%s\n", strings.Repeat(" ", len(number)), strings.Repeat(" ", column-1),
		red, strings.Repeat("^", length), clean(f.Detail), reset)
}

// window cuts a long line to the part around a column, and returns the column in that part. The column
// is at most one behind the end.
func window(line []rune, column int) ([]rune, int) {
	column = min(column, len(line)+1)
	if len(line) <= sourceWindow {
		return line, column
	}
	from := max(0, min(column-1-sourceWindow/3, len(line)-sourceWindow))
	part := append([]rune(nil), line[from:from+sourceWindow]...)
	if from > 0 {
		part[0] = '…'
	}
	if from+sourceWindow < len(line) {
		part[len(part)-1] = '…'
	}
	return part, column - from
}

// clean takes control characters out of text that may come from elsewhere: a terminal must not obey it,
// and a line must stay one. Marks that turn the direction of writing go too: they can make a text look
// like another.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case r < ' ' || 0x7f <= r && r < 0xa0,
			r == 0x200e || r == 0x200f || 0x2028 <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069:
			return '?'
		}
		return r
	}, s)
}
