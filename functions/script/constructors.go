package script

import (
	"fmt"

	lua "github.com/yuin/gopher-lua"
)

// The compiler gathers the items of a table constructor in registers and stores them 50 at a time. Where there are 50, 100, … items before
// a named field or before a call that ends the list, it stores some twice or in the wrong place, and beyond 25,550 items
// it loses count. What it made is mended here, instruction by instruction.

// maxChunk is the largest chunk number that fits an instruction; a larger one stands in the word behind it.
const maxChunk = 1<<9 - 1

// instruction is a word of code: six bits of operation, eight of A, nine of C, nine of B.
type instruction uint32

func (i instruction) op() int { return int(i >> 26) }
func (i instruction) a() int  { return int(i>>18) & 0xff }
func (i instruction) c() int  { return int(i>>9) & maxChunk }
func (i instruction) b() int  { return int(i) & 0x1ff }

func (i instruction) withC(c int) uint32 { return uint32(i)&^(maxChunk<<9) | uint32(c)<<9 }

const nop = uint32(lua.OP_NOP) << 26

// mendConstructors goes through the code of a function and of those within.
func mendConstructors(p *lua.FunctionProto) error {
	stored := map[int]int{} // chunks that are full, by the register of the table
	for pc := 0; pc < len(p.Code); pc++ {
		i := instruction(p.Code[pc])
		switch i.op() {
		case lua.OP_NEWTABLE:
			stored[i.a()] = 0
		case lua.OP_SETLIST:
			size := 1
			if i.c() == 0 {
				size = 2
			}
			if i.b() == lua.FieldsPerFlush && pc > 0 && setsField(instruction(p.Code[pc-1]), i.a()) {
				for n := range size { // a field was set since the items were stored, and nothing is new
					p.Code[pc+n] = nop
				}
			} else {
				chunk := stored[i.a()] + 1
				switch {
				case size == 2:
					p.Code[pc+1] = uint32(chunk)
				case chunk <= maxChunk:
					p.Code[pc] = i.withC(chunk)
				default:
					return fmt.Errorf("a table with %d items and a call at its end cannot be compiled; add an item", maxChunk*lua.FieldsPerFlush)
				}
				stored[i.a()] = chunk
			}
			pc += size - 1
		}
	}
	for _, inner := range p.FunctionPrototypes {
		if err := mendConstructors(inner); err != nil {
			return err
		}
	}
	return nil
}

// setsField says whether an instruction sets a named field of the table in a register.
func setsField(i instruction, table int) bool {
	return (i.op() == lua.OP_SETTABLE || i.op() == lua.OP_SETTABLEKS) && i.a() == table
}
