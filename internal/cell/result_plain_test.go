package cell_test

import (
	"strings"
	"testing"

	"sallyport/internal/cell"
)

var plainResults = []string{
	`{}`,
	`{"reply":null}`,
	` {"reply" : {"a":[1,2,{"b":"\u00e4\n"}]} , "events":[ ] } `,
	`{"events":[{}],"reply":"x"}`,
	`{"reply":{},"events":[{"type":"order.priced","id":"e-1","subject":"näyttely","datacontenttype":"application/json","data":{"total":1}},{"type":"a.b","data":null}]}`,
}

var otherResults = []string{
	``, ` `, `null`, `7`, `[]`, `{`, `{"reply":1`, `{"reply":1}}`, `{"reply":1} 7`, `{"reply":1,}`, `{"reply":1,"reply":2}`, `{"reply":{"a":1,"a":2}}`,
	`{"repl\u0079":1}`, `{"Reply":1}`, `{"other":1}`, `{"reply":"` + "\xff" + `"}`, `{"reply":"\ud800"}`,
	`{"events":null}`, `{"events":7}`, `{"events":{}}`, `{"events":[null]}`, `{"events":[7]}`, `{"events":[{}`, `{"events":[{},]}`, `{"events":[{}}`,
	`{"events":[{"type":"a\u002eb"}]}`, `{"events":[{"type":null}]}`, `{"events":[{"type":"a.b","type":"a.c"}]}`, `{"events":[{"data_base64":"AA=="}]}`,
	`{"error":null}`, `{"error":{"message":"m"}}`, `{"reply":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`,
	`{"events":[` + strings.Repeat("{},", cell.MaxEvents) + `{}]}`,
}

// TestPlainResult: the quick way through a result is taken for the usual ones, for these alone, and leads to the same.
func TestPlainResult(t *testing.T) {
	t.Parallel()
	for want, texts := range map[bool][]string{true: plainResults, false: otherResults} {
		for _, text := range texts {
			if plain, agrees := cell.PlainResult([]byte(text)); plain != want || !agrees {
				t.Errorf("PlainResult(%.80s) = %t, agrees: %t; want %t, true", text, plain, agrees, want)
			}
		}
	}
}

// FuzzPlainResult: where there is a quick way through a result, it leads to the same as the other.
func FuzzPlainResult(f *testing.F) {
	for _, text := range append(plainResults, otherResults...) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, agrees := cell.PlainResult(text); !agrees {
			t.Errorf("%q is another result when it is read the quick way", text)
		}
	})
}
