package harden_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/tetratelabs/wazero"

	"sallyport/internal/cell/harden"
)

// dataModule is a module of two pages of exported memory with these sections after it.
func dataModule(sections ...[]byte) []byte {
	m := []byte("\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x02\x07\x0a\x01\x06memory\x02\x00")
	return append(m, bytes.Join(sections, nil)...)
}

// dataSection is a section of active segments: each begins with its place.
func dataSection(segments ...[]byte) []byte {
	body := binary.AppendUvarint(nil, uint64(len(segments)))
	for _, s := range segments {
		body = append(body, s...)
	}
	return append(binary.AppendUvarint([]byte{11}, uint64(len(body))), body...)
}

func active(at int32, data string) []byte {
	s := []byte{0, 0x41}
	for v := at; ; v >>= 7 {
		if v >= -64 && v < 64 {
			s = append(s, byte(v&0x7f))
			break
		}
		s = append(s, byte(v)|0x80)
	}
	return append(append(s, 0x0b, byte(len(data))), data...)
}

// TestDataIsJoined: a module with joined segments has the memory that it had, and few segments.
func TestDataIsJoined(t *testing.T) {
	t.Parallel()
	many := make([][]byte, 5000)
	for i := range many {
		many[(i+2500)%5000] = active(int32(20*i), "0123456789") // the lower half comes last
	}
	far := make([][]byte, 100)
	for i := range far {
		far[i] = active(int32(1000*i), "x")
	}
	for _, tt := range []struct {
		name   string
		module []byte
	}{
		{"many", dataModule(dataSection(many...))},
		{"far apart", dataModule(dataSection(far...))},
		{"overlapping", dataModule(dataSection(active(10, "aaaa"), active(12, "bbbb"), active(8, "cccc")))},
		{"touching", dataModule(dataSection(active(10, "aaaa"), active(14, "bbbb")))},
		{"passive", dataModule([]byte{12, 1, 2}, dataSection(active(10, "aaaa"), []byte{1, 1, 'b'}))},
		{"counted", dataModule([]byte{12, 1, 2}, dataSection(active(10, "aaaa"), active(20, "bbbb")))},
		{"none", dataModule(dataSection())},
		{"empty segments", dataModule(dataSection(active(10, ""), active(10, ""), active(131072, "")))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hardened, _, err := harden.Module(tt.module)
			if err != nil {
				t.Fatal(err)
			}
			want, got := memoryOf(t, tt.module), memoryOf(t, hardened)
			if !bytes.Equal(want, got) {
				t.Error("the memory differs")
			}
			if tt.name == "many" && bytes.Count(hardened, []byte{0x0b, 10}) > 10 {
				t.Error("the segments are not joined")
			}
		})
	}
	if _, _, err := harden.Module(dataModule([]byte{12, 1, 3}, dataSection(active(10, "aaaa"), active(20, "bbbb")))); err != nil {
		t.Errorf("a wrong count is for the compiler to see, got %v", err)
	}
}

// TestDataOutside: a segment outside the memory is a fault before and after.
func TestDataOutside(t *testing.T) {
	t.Parallel()
	for _, at := range []int32{131070, 200_000, -1} {
		hardened, _, err := harden.Module(dataModule(dataSection(active(131060, "aaaa"), active(at, "bbbb"))))
		if err != nil {
			t.Fatal(err)
		}
		runtime := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
		if _, err := runtime.Instantiate(t.Context(), hardened); err == nil {
			t.Errorf("a segment at %d of 131072 bytes was written", at)
		}
		if err := runtime.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func memoryOf(t *testing.T, module []byte) []byte {
	t.Helper()
	runtime := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
	defer func() {
		if err := runtime.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	mod, err := runtime.Instantiate(t.Context(), module)
	if err != nil {
		t.Fatal(err)
	}
	all, _ := mod.Memory().Read(0, mod.Memory().Size())
	return bytes.Clone(all)
}

// TestSplitData: a module without its data, and with the data written by the host, begins with the memory of the whole
// module. What names its segments, or has them overlap or at a computed place, keeps them.
func TestSplitData(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		code   []byte
		splits bool
	}{
		{"apart", dataModule(dataSection(active(10, "aaaa"), active(70000, "bbbb"))), true},
		{"out of order", dataModule(dataSection(active(70000, "bbbb"), active(10, "aaaa"))), true},
		{"empty", dataModule(dataSection(active(10, ""))), true},
		{"none", dataModule(), false},
		{"overlapping", dataModule(dataSection(active(10, "aaaa"), active(12, "bbbb"))), false},
		{"passive", dataModule([]byte{12, 1, 2}, dataSection(active(10, "aaaa"), []byte{1, 1, 'b'})), false},
	} {
		hardened, _, err := harden.Module(test.code)
		if err != nil {
			t.Fatal(test.name, err)
		}
		bare, encoded, err := harden.SplitData(hardened)
		if err != nil || (encoded != nil) != test.splits {
			t.Errorf("%s: SplitData = %d bytes of data, %v; want some: %t", test.name, len(encoded), err, test.splits)
			continue
		}
		data, err := harden.ParseData(encoded)
		if err != nil {
			t.Errorf("%s: ParseData = %v", test.name, err)
			continue
		}
		want, got := memoryOf(t, hardened), memoryOf(t, bare)
		if test.splits && !bytes.Equal(got, make([]byte, len(got))) {
			t.Errorf("%s: the module still has data", test.name)
		}
		for _, d := range data {
			copy(got[d.At:], d.Bytes)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the memory with the data written is not that of the module", test.name)
		}
	}
}

// FuzzParseData: what is no data is refused, and what is taken lies in what was given.
func FuzzParseData(f *testing.F) {
	f.Add([]byte{1, 0, 0x41, 10, 0x0b, 1, 'a'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, encoded []byte) {
		data, err := harden.ParseData(encoded)
		if err != nil {
			return
		}
		total := 0
		for i, d := range data {
			if total += len(d.Bytes); i > 0 && uint64(d.At) < uint64(data[i-1].At)+uint64(len(data[i-1].Bytes)) {
				t.Error("segments overlap or are out of order")
			}
		}
		if total > len(encoded) {
			t.Errorf("%d bytes have %d bytes of data", len(encoded), total)
		}
	})
}
