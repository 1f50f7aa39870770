/// The bits of `Float16(value)`, rounded to nearest, ties to even, in integer steps that vectorise. Without half-precision
/// instructions `Float16(value)` is a function call for each element.
@inline(__always)
func halfBits(_ value: Float) -> UInt16 {
    let sign = value.bitPattern & 0x8000_0000
    let magnitude = value.bitPattern ^ sign
    // Normal halves: change the exponent's bias and add what rounds the 13 lost bits.
    let normal = (magnitude &+ (0xC800_0FFF &+ ((magnitude >> 13) & 1))) >> 13
    // Below the smallest normal half, adding 0.5 lets the adder align and round the mantissa.
    let subnormal = (Float(bitPattern: magnitude) + 0.5).bitPattern &- Float(0.5).bitPattern
    let special: UInt32 = magnitude > 0x7F80_0000 ? 0x7E00 : 0x7C00
    let half = magnitude >= 0x4780_0000 ? special : magnitude < 0x3880_0000 ? subnormal : normal
    return UInt16(truncatingIfNeeded: half | sign >> 16)
}
