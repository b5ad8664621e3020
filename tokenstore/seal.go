package tokenstore

import (
	"encoding/binary"
	"errors"
	"slices"
)

// purpose separates what is sealed: each has its own derived key and stands in the associated data.
type purpose string

const (
	purposeRecord    purpose = "record"
	purposeTombstone purpose = "tombstone"
	purposeShelf     purpose = "shelf"
	purposeCheck     purpose = "check"
	purposeNote      purpose = "note"
)

var purposes = []purpose{purposeRecord, purposeTombstone, purposeShelf, purposeCheck, purposeNote}

// sealFormat is the version of the envelope: format byte, length of the key id, key id, nonce, ciphertext.
const sealFormat = 1

// errOpen says that an envelope does not open; deliberately not why, beyond this.
var errOpen = errors.New("it does not open with this key ring at this place")

// seal encrypts plain for a purpose and a place with the newest key. Only an equal purpose and place open it again.
func (k *Keyring) seal(p purpose, place []byte, plain []byte) []byte {
	return k.sealUnder(k.first, p, place, plain)
}

// sealUnder seals with a certain key of the ring.
func (k *Keyring) sealUnder(id string, p purpose, place []byte, plain []byte) []byte {
	envelope := append([]byte{sealFormat, byte(len(id))}, id...)
	ad := associated(envelope, p, place)
	return k.aeads[id][p].Seal(envelope, nil, plain, ad)
}

// open decrypts an envelope made by seal.
func (k *Keyring) open(p purpose, place []byte, envelope []byte) ([]byte, error) {
	id, err := keyOf(envelope)
	if err != nil {
		return nil, err
	}
	aead, known := k.aeads[id][p]
	if !known {
		return nil, errors.New("its encryption key is not in the ring")
	}
	end := 2 + len(id)
	plain, err := aead.Open(nil, nil, envelope[end:], associated(envelope[:end], p, place))
	if err != nil {
		return nil, errOpen
	}
	return plain, nil
}

// keyOf returns the id of the key that an envelope names.
func keyOf(envelope []byte) (string, error) {
	if len(envelope) < 2 || envelope[0] != sealFormat {
		return "", errors.New("its seal has an unknown format")
	}
	end := 2 + int(envelope[1])
	if len(envelope) < end {
		return "", errors.New("its seal is cut short")
	}
	return string(envelope[2:end]), nil
}

// associated is the associated data: envelope header, purpose and place, each with its length so that no two differ only
// in where one part ends.
func associated(header []byte, p purpose, place []byte) []byte {
	return appendParts(nil, header, []byte(p), place)
}

// appendParts appends each part after its length. It is injective: different lists of parts give different bytes.
func appendParts(dst []byte, parts ...[]byte) []byte {
	for _, part := range parts {
		dst = binary.AppendUvarint(dst, uint64(len(part)))
		dst = append(dst, part...)
	}
	return dst
}

// cutPart undoes one step of appendParts.
func cutPart(src []byte) (part, rest []byte, ok bool) {
	n, used := binary.Uvarint(src)
	if used <= 0 || n > uint64(len(src)-used) {
		return nil, nil, false
	}
	src = src[used:]
	return slices.Clip(src[:n]), src[n:], true
}
