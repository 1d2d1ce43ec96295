"""
Test vectors: keys, records and messages of RFC 6376 (appendices A and C) and RFC 8463 (appendix A).

Both are as printed, without the left margin.  Of RFC 6376 A.2 the folds have six blanks, and the second line of the body
has one blank less: that is what its hashes are of, the printing has changed both.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mailserver.dkim import load_private_key

RSA_PEM = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
"""

#: RFC 6376 appendix C.
BRISBANE_PEM = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIICXwIBAAKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFC
jxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gb
to/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB
AoGBALmn+XwWk7akvkUlqb+dOxyLB9i5VBVfje89Teolwc9YJT36BGN/l4e0l6QX
/1//6DWUTB3KI6wFcm7TWJcxbS0tcKZX7FsJvUz1SbQnkS54DJck1EZO/BLa5ckJ
gAYIaqlA9C0ZwM6i58lLlPadX/rtHb7pWzeNcZHjKrjM461ZAkEA+itss2nRlmyO
n1/5yDyCluST4dQfO8kAB3toSEVc7DeFeDhnC1mZdjASZNvdHS4gbLIA1hUGEF9m
3hKsGUMMPwJBAPW5v/U+AWTADFCS22t72NUurgzeAbzb1HWMqO4y4+9Hpjk5wvL/
eVYizyuce3/fGke7aRYw/ADKygMJdW8H/OcCQQDz5OQb4j2QDpPZc0Nc4QlbvMsj
7p7otWRO5xRa6SzXqqV3+F0VpqvDmshEBkoCydaYwc2o6WQ5EBmExeV8124XAkEA
qZzGsIxVP+sEVRWZmW6KNFSdVUpk3qzK0Tz/WjQMe5z0UunY9Ax9/4PVhp/j61bf
eAYXunajbBSOLlx4D+TunwJBANkPI5S9iylsbLs6NkaMHV6k5ioHBBmgCak95JGX
GMot/L2x0IYyMLAz6oLWh2hm7zwtb0CgOrPo1ke44hFYnfc=
-----END RSA PRIVATE KEY-----
"""

_SEED = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
ED25519_PEM = Ed25519PrivateKey.from_private_bytes(_SEED).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
RSA, BRISBANE, ED25519 = (load_private_key(pem) for pem in (RSA_PEM, BRISBANE_PEM, ED25519_PEM))

#: Name -> TXT records, each a list of strings.
RECORDS = {
    "brisbane._domainkey.football.example.com": [
        [b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
    ],
    "test._domainkey.football.example.com": [
        [
            b"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR",
            b"iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC",
            b"DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3",
            b"Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
        ]
    ],
    "brisbane._domainkey.example.com": [
        [
            b"v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQ",
            b"KBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt",
            b"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v",
            b"/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhi",
            b"tdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB",
        ]
    ],
}

MESSAGE_8463 = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")

MESSAGE_6376 = b"""\
DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=brisbane;
   c=simple; q=dns/txt; i=@eng.example.net;
   t=1117574938; x=1118006938;
   h=from:to:subject:date;
   z=From:foo@eng.example.net|To:joe@example.com|
    Subject:demo=20run|Date:July=205,=202005=203:44:08=20PM=20-0700;
   bh=MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=;
   b=dzdVyOfAKCdLXdJOc9G2q8LoXSlEniSbav+yuU4zGeeruD00lszZVoG4ZHRNiYzR



cker, et al.              Standards Track                   [Page 25]

 6376                     DKIM Signatures              September 2011


.  Key Management and Representation

Signature applications require some level of assurance that the
verification public key is associated with the claimed Signer.  Many
applications achieve this by using public-key certificates issued by
a trusted third party.  However, DKIM can achieve a sufficient level
of security, with significantly enhanced scalability, by simply
having the Verifier query the purported Signer's DNS entry (or some
security-equivalent) in order to retrieve the public key.

DKIM keys can potentially be stored in multiple types of key servers
and in multiple formats.  The storage and format of keys are
irrelevant to the remainder of the DKIM algorithm.

Parameters to the key lookup algorithm are the type of the lookup
(the "q=" tag), the domain of the Signer (the "d=" tag of the DKIM-
Signature header field), and the selector (the "s=" tag).

public_key = dkim_find_key(q_val, d_val, s_val)

This document defines a single binding, using DNS TXT RRs to
distribute the keys.  Other bindings may be defined in the future.

.1.  Textual Representation

It is expected that many key servers will choose to present the keys
in an otherwise unstructured text format (for example, an XML form
would not be considered to be unstructured text for this purpose).
The following definition MUST be used for any DKIM key represented in
an otherwise unstructured textual form.

The overall syntax is a tag-list as described in Section 3.2.  The
current valid tags are described below.  Other tags MAY be present
and MUST be ignored by any implementation that does not understand
them.

v= Version of the DKIM key record (plain-text; RECOMMENDED, default
   is "DKIM1").  If specified, this tag MUST be set to "DKIM1"
   (without the quotes).  This tag MUST be the first tag in the
   record.  Records beginning with a "v=" tag with any other value
   MUST be discarded.  Note that Verifiers must do a string
   comparison on this value; for example, "DKIM1" is not the same as
   "DKIM1.0".

   ABNF:

   key-v-tag    = %x76 [FWS] "=" [FWS] %x44.4B.49.4D.31




cker, et al.              Standards Track                   [Page 26]

 6376                     DKIM Signatures              September 2011


h= Acceptable hash algorithms (plain-text; OPTIONAL, defaults to
   allowing all algorithms).  A colon-separated list of hash
   algorithms that might be used.  Unrecognized algorithms MUST be
   ignored.  Refer to Section 3.3 for a discussion of the hash
   algorithms implemented by Signers and Verifiers.  The set of
   algorithms listed in this tag in each record is an operational
   choice made by the Signer.

   ABNF:

   key-h-tag       = %x68 [FWS] "=" [FWS] key-h-tag-alg
                     *( [FWS] ":" [FWS] key-h-tag-alg )
   key-h-tag-alg   = "sha1" / "sha256" / x-key-h-tag-alg
   x-key-h-tag-alg = hyphenated-word   ; for future extension

k= Key type (plain-text; OPTIONAL, default is "rsa").  Signers and
   Verifiers MUST support the "rsa" key type.  The "rsa" key type
   indicates that an ASN.1 DER-encoded [ITU-X660-1997] RSAPublicKey
   (see [RFC3447], Sections 3.1 and A.1.1) is being used in the "p="
   tag.  (Note: the "p=" tag further encodes the value using the
   base64 algorithm.)  Unrecognized key types MUST be ignored.

   ABNF:

   key-k-tag        = %x76 [FWS] "=" [FWS] key-k-tag-type
   key-k-tag-type   = "rsa" / x-key-k-tag-type
   x-key-k-tag-type = hyphenated-word   ; for future extension

n= Notes that might be of interest to a human (qp-section; OPTIONAL,
   default is empty).  No interpretation is made by any program.
   This tag should be used sparingly in any key server mechanism that
   has space limitations (notably DNS).  This is intended for use by
   administrators, not end users.

   ABNF:

   key-n-tag    = %x6e [FWS] "=" [FWS] qp-section

p= Public-key data (base64; REQUIRED).  An empty value means that
   this public key has been revoked.  The syntax and semantics of
   this tag value before being encoded in base64 are defined by the
   "k=" tag.

      INFORMATIVE RATIONALE: If a private key has been compromised or
      otherwise disabled (e.g., an outsourcing contract has been
      terminated), a Signer might want to explicitly state that it
      knows about the selector, but all messages using that selector




cker, et al.              Standards Track                   [Page 27]

 6376                     DKIM Signatures              September 2011


      should fail verification.  Verifiers SHOULD return an error
      code for any DKIM-Signature header field with a selector
      referencing a revoked key.  (See Section 6.1.2 for details.)

   ABNF:

   key-p-tag    = %x70 [FWS] "=" [ [FWS] base64string]

      INFORMATIVE NOTE: A base64string is permitted to include
      whitespace (FWS) at arbitrary places; however, any CRLFs must
      be followed by at least one WSP character.  Implementers and
      administrators are cautioned to ensure that selector TXT RRs
      conform to this specification.

s= Service Type (plain-text; OPTIONAL; default is "*").  A colon-
   separated list of service types to which this record applies.
   Verifiers for a given service type MUST ignore this record if the
   appropriate type is not listed.  Unrecognized service types MUST
   be ignored.  Currently defined service types are as follows:

   *  matches all service types

   email   electronic mail (not necessarily limited to SMTP)

   This tag is intended to constrain the use of keys for other
   purposes, should use of DKIM be defined by other services in the
   future.

   ABNF:

   key-s-tag        = %x73 [FWS] "=" [FWS] key-s-tag-type
                      *( [FWS] ":" [FWS] key-s-tag-type )
   key-s-tag-type   = "email" / "*" / x-key-s-tag-type
   x-key-s-tag-type = hyphenated-word   ; for future extension

t= Flags, represented as a colon-separated list of names (plain-
   text; OPTIONAL, default is no flags set).  Unrecognized flags MUST
   be ignored.  The defined flags are as follows:

   y  This domain is testing DKIM.  Verifiers MUST NOT treat messages
      from Signers in testing mode differently from unsigned email,
      even should the signature fail to verify.  Verifiers MAY wish
      to track testing mode results to assist the Signer.








cker, et al.              Standards Track                   [Page 28]

 6376                     DKIM Signatures              September 2011


   s  Any DKIM-Signature header fields using the "i=" tag MUST have
      the same domain value on the right-hand side of the "@" in the
      "i=" tag and the value of the "d=" tag.  That is, the "i="
      domain MUST NOT be a subdomain of "d=".  Use of this flag is
      RECOMMENDED unless subdomaining is required.

   ABNF:

   key-t-tag        = %x74 [FWS] "=" [FWS] key-t-tag-flag
                      *( [FWS] ":" [FWS] key-t-tag-flag )
   key-t-tag-flag   = "y" / "s" / x-key-t-tag-flag
   x-key-t-tag-flag = hyphenated-word   ; for future extension

.2.  DNS Binding

A binding using DNS TXT RRs as a key service is hereby defined.  All
implementations MUST support this binding.

.2.1.  Namespace

All DKIM keys are stored in a subdomain named "_domainkey".  Given a
DKIM-Signature field with a "d=" tag of "example.com" and an "s=" tag
of "foo.bar", the DNS query will be for
"foo.bar._domainkey.example.com".

.2.2.  Resource Record Types for Key Storage

The DNS Resource Record type used is specified by an option to the
query-type ("q=") tag.  The only option defined in this base
specification is "txt", indicating the use of a TXT RR.  A later
extension of this standard may define another RR type.

Strings in a TXT RR MUST be concatenated together before use with no
intervening whitespace.  TXT RRs MUST be unique for a particular
selector name; that is, if there are multiple records in an RRset,
the results are undefined.

TXT RRs are encoded as described in Section 3.6.1.

.  Computing the Message Hashes

Both signing and verifying message signatures start with a step of
computing two cryptographic hashes over the message.  Signers will
choose the parameters of the signature as described in "Signer
Actions" (Section 5); Verifiers will use the parameters specified in
the DKIM-Signature header field being verified.  In the following
discussion, the names of the tags in the DKIM-Signature header field
that either exists (when verifying) or will be created (when signing)



cker, et al.              Standards Track                   [Page 29]

 6376                     DKIM Signatures              September 2011


are used.  Note that canonicalization (Section 3.4) is only used to
prepare the email for signing or verifying; it does not affect the
transmitted email in any way.

The Signer/Verifier MUST compute two hashes: one over the body of the
message and one over the selected header fields of the message.

Signers MUST compute them in the order shown.  Verifiers MAY compute
them in any order convenient to the Verifier, provided that the
result is semantically identical to the semantics that would be the
case had they been computed in this order.

In hash step 1, the Signer/Verifier MUST hash the message body,
canonicalized using the body canonicalization algorithm specified in
the "c=" tag and then truncated to the length specified in the "l="
tag.  That hash value is then converted to base64 form and inserted
into (Signers) or compared to (Verifiers) the "bh=" tag of the DKIM-
Signature header field.

In hash step 2, the Signer/Verifier MUST pass the following to the
hash algorithm in the indicated order.

1.  The header fields specified by the "h=" tag, in the order
    specified in that tag, and canonicalized using the header
    canonicalization algorithm specified in the "c=" tag.  Each
    header field MUST be terminated with a single CRLF.

2.  The DKIM-Signature header field that exists (verifying) or will
    be inserted (signing) in the message, with the value of the "b="
    tag (including all surrounding whitespace) deleted (i.e., treated
    as the empty string), canonicalized using the header
    canonicalization algorithm specified in the "c=" tag, and without
    a trailing CRLF.

All tags and their values in the DKIM-Signature header field are
included in the cryptographic hash with the sole exception of the
value portion of the "b=" (signature) tag, which MUST be treated as
the null string.  All tags MUST be included even if they might not be
understood by the Verifier.  The header field MUST be presented to
the hash algorithm after the body of the message rather than with the
rest of the header fields and MUST be canonicalized as specified in
the "c=" (canonicalization) tag.  The DKIM-Signature header field
MUST NOT be included in its own "h=" tag, although other DKIM-
Signature header fields MAY be signed (see Section 4).

When calculating the hash on messages that will be transmitted using
base64 or quoted-printable encoding, Signers MUST compute the hash
after the encoding.  Likewise, the Verifier MUST incorporate the



cker, et al.              Standards Track                   [Page 30]

 6376                     DKIM Signatures              September 2011


values into the hash before decoding the base64 or quoted-printable
text.  However, the hash MUST be computed before transport-level
encodings such as SMTP "dot-stuffing" (the modification of lines
beginning with a "." to avoid confusion with the SMTP end-of-message
marker, as specified in [RFC5321]).

With the exception of the canonicalization procedure described in
Section 3.4, the DKIM signing process treats the body of messages as
simply a string of octets.  DKIM messages MAY be either in plain-text
or in MIME format; no special treatment is afforded to MIME content.
Message attachments in MIME format MUST be included in the content
that is signed.

More formally, pseudo-code for the signature algorithm is:

body-hash    =  hash-alg (canon-body, l-param)
data-hash    =  hash-alg (h-headers, D-SIG, body-hash)
signature    =  sig-alg (d-domain, selector, data-hash)

where:

body-hash:  is the output from hashing the body, using hash-alg.

hash-alg:   is the hashing algorithm specified in the "a" parameter.

canon-body: is a canonicalized representation of the body, produced
            using the body algorithm specified in the "c" parameter,
            as defined in Section 3.4 and excluding the
            DKIM-Signature field.

l-param:    is the length-of-body value of the "l" parameter.

data-hash:  is the output from using the hash-alg algorithm, to hash
            the header including the DKIM-Signature header, and the
            body hash.

h-headers:  is the list of headers to be signed, as specified in the
            "h" parameter.

D-SIG:      is the canonicalized DKIM-Signature field itself without
            the signature value portion of the parameter, that is, an
            empty parameter value.

signature:  is the signature value produced by the signing algorithm.

sig-alg:    is the signature algorithm specified by the "a"
            parameter.




cker, et al.              Standards Track                   [Page 31]

 6376                     DKIM Signatures              September 2011


d-domain:   is the domain name specified in the "d" parameter.

selector:   is the selector value specified in the "s" parameter.

   NOTE: Many digital signature APIs provide both hashing and
   application of the RSA private key using a single "sign()"
   primitive.  When using such an API, the last two steps in the
   algorithm would probably be combined into a single call that would
   perform both the "a-hash-alg" and the "sig-alg".

.  Input Requirements

A message that is not compliant with [RFC5322], [RFC2045], and
[RFC2047] can be subject to attempts by intermediaries to correct or
interpret such content.  See Section 8 of [RFC4409] for examples of
changes that are commonly made.  Such "corrections" may invalidate
DKIM signatures or have other undesirable effects, including some
that involve changes to the way a message is presented to an end
user.

Accordingly, DKIM's design is predicated on valid input.  Therefore,
Signers and Verifiers SHOULD take reasonable steps to ensure that the
messages they are processing are valid according to [RFC5322],
[RFC2045], and any other relevant message format standards.

See Section 8.15 for additional discussion.

.  Output Requirements

The evaluation of each signature ends in one of three states, which
this document refers to as follows:

SUCCESS:  a successful verification

PERMFAIL:  a permanent, non-recoverable error such as a signature
   verification failure

TEMPFAIL:  a temporary, recoverable error such as a DNS query timeout

For each signature that verifies successfully or produces a TEMPFAIL
result, output of the DKIM algorithm MUST include the set of:

o  The domain name, taken from the "d=" signature tag; and

o  The result of the verification attempt for that signature.






cker, et al.              Standards Track                   [Page 32]

 6376                     DKIM Signatures              September 2011


The output MAY include other signature properties or result meta-
data, including PERMFAILed or otherwise ignored signatures, for use
by modules that consume those results.

See Section 6.1 for discussion of signature validation result codes.

0.  Signing by Parent Domains

In some circumstances, it is desirable for a domain to apply a
signature on behalf of any of its subdomains without the need to
maintain separate selectors (key records) in each subdomain.  By
default, private keys corresponding to key records can be used to
sign messages for any subdomain of the domain in which they reside;
for example, a key record for the domain example.com can be used to
verify messages where the AUID ("i=" tag of the signature) is
sub.example.com, or even sub1.sub2.example.com.  In order to limit
the capability of such keys when this is not intended, the "s" flag
MAY be set in the "t=" tag of the key record, to constrain the
validity of the domain of the AUID.  If the referenced key record
contains the "s" flag as part of the "t=" tag, the domain of the AUID
("i=" flag) MUST be the same as that of the SDID (d=) domain.  If
this flag is absent, the domain of the AUID MUST be the same as, or a
subdomain of, the SDID.

1.  Relationship between SDID and AUID

DKIM's primary task is to communicate from the Signer to a recipient-
side Identity Assessor a single Signing Domain Identifier (SDID) that
refers to a responsible identity.  DKIM MAY optionally provide a
single responsible Agent or User Identifier (AUID).

Hence, DKIM's mandatory output to a receive-side Identity Assessor is
a single domain name.  Within the scope of its use as DKIM output,
the name has only basic domain name semantics; any possible owner-
specific semantics are outside the scope of DKIM.  That is, within
its role as a DKIM identifier, additional semantics cannot be assumed
by an Identity Assessor.

Upon successfully verifying the signature, a receive-side DKIM
Verifier MUST communicate the Signing Domain Identifier (d=) to a
consuming Identity Assessor module and MAY communicate the Agent or
User Identifier (i=) if present.

To the extent that a receiver attempts to intuit any structured
semantics for either of the identifiers, this is a heuristic function
that is outside the scope of DKIM's specification and semantics.





cker, et al.              Standards Track                   [Page 33]

 6376                     DKIM Signatures              September 2011


Hence, it is relegated to a higher-level service, such as a delivery-
handling filter that integrates a variety of inputs and performs
heuristic analysis of them.

   INFORMATIVE DISCUSSION: This document does not require the value
   of the SDID or AUID to match an identifier in any other message
   header field.  This requirement is, instead, an Assessor policy
   issue.  The purpose of such a linkage would be to authenticate the
   value in that other header field.  This, in turn, is the basis for
   applying a trust assessment based on the identifier value.  Trust
   is a broad and complex topic, and trust mechanisms are subject to
   highly creative attacks.  The real-world efficacy of any but the
   most basic bindings between the SDID or AUID and other identities
   is not well established, nor is its vulnerability to subversion by
   an attacker.  Hence, reliance on the use of such bindings should
   be strictly limited.  In particular, it is not at all clear to
   what extent a typical end-user recipient can rely on any
   assurances that might be made by successful use of the SDID or
   AUID.

 Semantics of Multiple Signatures

.  Example Scenarios

There are many reasons why a message might have multiple signatures.
For example, suppose SHA-256 is in the future found to be
insufficiently strong, and DKIM usage transitions to SHA-1024.  A
Signer might immediately sign using the newer algorithm but also
continue to sign using the older algorithm for interoperability with
Verifiers that had not yet upgraded.  The Signer would do this by
adding two DKIM-Signature header fields, one using each algorithm.
Older Verifiers that did not recognize SHA-1024 as an acceptable
algorithm would skip that signature and use the older algorithm;
newer Verifiers could use either signature at their option and, all
other things being equal, might not even attempt to verify the other
signature.

Similarly, a Signer might sign a message including all header fields
and no "l=" tag (to satisfy strict Verifiers) and a second time with
a limited set of header fields and an "l=" tag (in anticipation of
possible message modifications en route to other Verifiers).
Verifiers could then choose which signature they prefer.

Of course, a message might also have multiple signatures because it
passed through multiple Signers.  A common case is expected to be
that of a signed message that passes through a mailing list that also





cker, et al.              Standards Track                   [Page 34]

 6376                     DKIM Signatures              September 2011


signs all messages.  Assuming both of those signatures verify, a
recipient might choose to accept the message if either of those
signatures were known to come from trusted sources.

In particular, recipients might choose to whitelist mailing lists to
which they have subscribed and that have acceptable anti-abuse
policies so as to accept messages sent to that list even from unknown
authors.  They might also subscribe to less trusted mailing lists
(e.g., those without anti-abuse protection) and be willing to accept
all messages from specific authors but insist on doing additional
abuse scanning for other messages.

Another related example of multiple Signers might be forwarding
services, such as those commonly associated with academic alumni
sites.  For example, a recipient might have an address at
members.example.org, a site that has anti-abuse protection that is
somewhat less effective than the recipient would prefer.  Such a
recipient might have specific authors whose messages would be trusted
absolutely, but messages from unknown authors that had passed the
forwarder's scrutiny would have only medium trust.

.  Interpretation

A Signer that is adding a signature to a message merely creates a new
DKIM-Signature header, using the usual semantics of the "h=" option.
A Signer MAY sign previously existing DKIM-Signature header fields
using the method described in Section 5.4 to sign trace header
fields.

Note that Signers should be cognizant that signing DKIM-Signature
header fields may result in signature failures with intermediaries
that do not recognize that DKIM-Signature header fields are trace
header fields and unwittingly reorder them, thus breaking such
signatures.  For this reason, signing existing DKIM-Signature header
fields is unadvised, albeit legal.

   INFORMATIVE NOTE: If a header field with multiple instances is
   signed, those header fields are always signed from the bottom up.
   Thus, it is not possible to sign only specific DKIM-Signature
   header fields.  For example, if the message being signed already
   contains three DKIM-Signature header fields A, B, and C, it is
   possible to sign all of them, B and C only, or C only, but not A
   only, B only, A and B only, or A and C only.

A Signer MAY add more than one DKIM-Signature header field using
different parameters.  For example, during a transition period, a
Signer might want to produce signatures using two different hash
algorithms.



cker, et al.              Standards Track                   [Page 35]

 6376                     DKIM Signatures              September 2011


Signers SHOULD NOT remove any DKIM-Signature header fields from
messages they are signing, even if they know that the signatures
cannot be verified.

When evaluating a message with multiple signatures, a Verifier SHOULD
evaluate signatures independently and on their own merits.  For
example, a Verifier that by policy chooses not to accept signatures
with deprecated cryptographic algorithms would consider such
signatures invalid.  Verifiers MAY process signatures in any order of
their choice; for example, some Verifiers might choose to process
signatures corresponding to the From field in the message header
before other signatures.  See Section 6.1 for more information about
signature choices.

   INFORMATIVE IMPLEMENTATION NOTE: Verifier attempts to correlate
   valid signatures with invalid signatures in an attempt to guess
   why a signature failed are ill-advised.  In particular, there is
   no general way that a Verifier can determine that an invalid
   signature was ever valid.

Verifiers SHOULD continue to check signatures until a signature
successfully verifies to the satisfaction of the Verifier.  To limit
potential denial-of-service attacks, Verifiers MAY limit the total
number of signatures they will attempt to verify.

If a Verifier module reports signatures whose evaluations produced
PERMFAIL results, Identity Assessors SHOULD ignore those signatures
(see Section 6.1), acting as though they were not present in the
message.

 Signer Actions

The following steps are performed in order by Signers.

.  Determine Whether the Email Should Be Signed and by Whom

A Signer can obviously only sign email for domains for which it has a
private key and the necessary knowledge of the corresponding public
key and selector information.  However, there are a number of other
reasons beyond the lack of a private key why a Signer could choose
not to sign an email.

   INFORMATIVE NOTE: A Signer can be implemented as part of any
   portion of the mail system as deemed appropriate, including an
   MUA, a SUBMISSION server, or an MTA.  Wherever implemented,
   Signers should beware of signing (and thereby asserting
   responsibility for) messages that may be problematic.  In
   particular, within a trusted enclave, the signing domain might be



cker, et al.              Standards Track                   [Page 36]

 6376                     DKIM Signatures              September 2011


   derived from the header according to local policy; SUBMISSION
   servers might only sign messages from users that are properly
   authenticated and authorized.

   INFORMATIVE IMPLEMENTER ADVICE: SUBMISSION servers should not sign
   Received header fields if the outgoing gateway MTA obfuscates
   Received header fields, for example, to hide the details of
   internal topology.

If an email cannot be signed for some reason, it is a local policy
decision as to what to do with that email.

.  Select a Private Key and Corresponding Selector Information

This specification does not define the basis by which a Signer should
choose which private key and selector information to use.  Currently,
all selectors are equal as far as this specification is concerned, so
the decision should largely be a matter of administrative
convenience.  Distribution and management of private keys is also
outside the scope of this document.

   INFORMATIVE OPERATIONS ADVICE: A Signer should not sign with a
   private key when the selector containing the corresponding public
   key is expected to be revoked or removed before the Verifier has
   an opportunity to validate the signature.  The Signer should
   anticipate that Verifiers can choose to defer validation, perhaps
   until the message is actually read by the final recipient.  In
   particular, when rotating to a new key pair, signing should
   immediately commence with the new private key, and the old public
   key should be retained for a reasonable validation interval before
   being removed from the key server.

.  Normalize the Message to Prevent Transport Conversions

Some messages, particularly those using 8-bit characters, are subject
to modification during transit, notably conversion to 7-bit form.
Such conversions will break DKIM signatures.  In order to minimize
the chances of such breakage, Signers SHOULD convert the message to a
suitable MIME content-transfer encoding such as quoted-printable or
base64 as described in [RFC2045] before signing.  Such conversion is
outside the scope of DKIM; the actual message SHOULD be converted to
7-bit MIME by an MUA or MSA prior to presentation to the DKIM
algorithm.

If the message is submitted to the Signer with any local encoding
that will be modified before transmission, that modification to
canonical [RFC5322] form MUST be done before signing.  In particular,
bare CR or LF characters (used by some systems as a local line



cker, et al.              Standards Track                   [Page 37]

 6376                     DKIM Signatures              September 2011


separator convention) MUST be converted to the SMTP-standard CRLF
sequence before the message is signed.  Any conversion of this sort
SHOULD be applied to the message actually sent to the recipient(s),
not just to the version presented to the signing algorithm.

More generally, the Signer MUST sign the message as it is expected to
be received by the Verifier rather than in some local or internal
form.

.1.  Body Length Limits

A body length count MAY be specified to limit the signature
calculation to an initial prefix of the body text, measured in
octets.  If the body length count is not specified, the entire
message body is signed.

   INFORMATIVE RATIONALE: This capability is provided because it is
   very common for mailing lists to add trailers to messages (e.g.,
   instructions on how to get off the list).  Until those messages
   are also signed, the body length count is a useful tool for the
   Verifier since it can, as a matter of policy, accept messages
   having valid signatures with extraneous data.

The length actually hashed should be inserted in the "l=" tag of the
DKIM-Signature header field.  (See Section 3.5.)

The body length count allows the Signer of a message to permit data
to be appended to the end of the body of a signed message.  The body
length count MUST be calculated following the canonicalization
algorithm; for example, any whitespace ignored by a canonicalization
algorithm is not included as part of the body length count.

A body length count of zero means that the body is completely
unsigned.

Signers wishing to ensure that no modification of any sort can occur
should specify the "simple" canonicalization algorithm for both
header and body and omit the body length count.

See Section 8.2 for further discussion.

.  Determine the Header Fields to Sign

The From header field MUST be signed (that is, included in the "h="
tag of the resulting DKIM-Signature header field).  Signers SHOULD
NOT sign an existing header field likely to be legitimately modified
or removed in transit.  In particular, [RFC5321] explicitly permits




cker, et al.              Standards Track                   [Page 38]

 6376                     DKIM Signatures              September 2011


modification or removal of the Return-Path header field in transit.
Signers MAY include any other header fields present at the time of
signing at the discretion of the Signer.

   INFORMATIVE OPERATIONS NOTE: The choice of which header fields to
   sign is non-obvious.  One strategy is to sign all existing, non-
   repeatable header fields.  An alternative strategy is to sign only
   header fields that are likely to be displayed to or otherwise be
   likely to affect the processing of the message at the receiver.  A
   third strategy is to sign only "well-known" headers.  Note that
   Verifiers may treat unsigned header fields with extreme
   skepticism, including refusing to display them to the end user or
   even ignoring the signature if it does not cover certain header
   fields.  For this reason, signing fields present in the message
   such as Date, Subject, Reply-To, Sender, and all MIME header
   fields are highly advised.

The DKIM-Signature header field is always implicitly signed and MUST
NOT be included in the "h=" tag except to indicate that other
preexisting signatures are also signed.

Signers MAY claim to have signed header fields that do not exist
(that is, Signers MAY include the header field name in the "h=" tag
even if that header field does not exist in the message).  When
computing the signature, the nonexisting header field MUST be treated
as the null string (including the header field name, header field
value, all punctuation, and the trailing CRLF).

   INFORMATIVE RATIONALE: This allows Signers to explicitly assert
   the absence of a header field; if that header field is added
   later, the signature will fail.

   INFORMATIVE NOTE: A header field name need only be listed once
   more than the actual number of that header field in a message at
   the time of signing in order to prevent any further additions.
   For example, if there is a single Comments header field at the
   time of signing, listing Comments twice in the "h=" tag is
   sufficient to prevent any number of Comments header fields from
   being appended; it is not necessary (but is legal) to list
   Comments three or more times in the "h=" tag.

Refer to Section 5.4.2 for a discussion of the procedure to be
followed when canonicalizing a header with more than one instance of
a particular header field name.

Signers need to be careful of signing header fields that might have
additional instances added later in the delivery process, since such
header fields might be inserted after the signed instance or



cker, et al.              Standards Track                   [Page 39]

 6376                     DKIM Signatures              September 2011


otherwise reordered.  Trace header fields (such as Received) and
Resent-* blocks are the only fields prohibited by [RFC5322] from
being reordered.  In particular, since DKIM-Signature header fields
may be reordered by some intermediate MTAs, signing existing DKIM-
Signature header fields is error-prone.

   INFORMATIVE ADMONITION: Despite the fact that [RFC5322] does not
   prohibit the reordering of header fields, reordering of signed
   header fields with multiple instances by intermediate MTAs will
   cause DKIM signatures to be broken; such antisocial behavior
   should be avoided.

   INFORMATIVE IMPLEMENTER'S NOTE: Although not required by this
   specification, all end-user visible header fields should be signed
   to avoid possible "indirect spamming".  For example, if the
   Subject header field is not signed, a spammer can resend a
   previously signed mail, replacing the legitimate subject with a
   one-line spam.

.1.  Recommended Signature Content

The purpose of the DKIM cryptographic algorithm is to affix an
identifier to the message in a way that is both robust against normal
transit-related changes and resistant to kinds of replay attacks.  An
essential aspect of satisfying these requirements is choosing what
header fields to include in the hash and what fields to exclude.

The basic rule for choosing fields to include is to select those
fields that constitute the "core" of the message content.  Hence, any
replay attack will have to include these in order to have the
signature succeed; however, with these included, the core of the
message is valid, even if sent on to new recipients.

Common examples of fields with addresses and fields with textual
content related to the body are:

o  From (REQUIRED; see Section 5.4)

o  Reply-To

o  Subject

o  Date

o  To, Cc

o  Resent-Date, Resent-From, Resent-To, Resent-Cc




cker, et al.              Standards Track                   [Page 40]

 6376                     DKIM Signatures              September 2011


o  In-Reply-To, References

o  List-Id, List-Help, List-Unsubscribe, List-Subscribe, List-Post,
   List-Owner, List-Archive

If the "l=" signature tag is in use (see Section 3.5), the Content-
Type field is also a candidate for being included as it could be
replaced in a way that causes completely different content to be
rendered to the receiving user.

There are trade-offs in the decision of what constitutes the "core"
of the message, which for some fields is a subjective concept.
Including fields such as "Message-ID", for example, is useful if one
considers a mechanism for being able to distinguish separate
instances of the same message to be core content.  Similarly, "In-
Reply-To" and "References" might be desirable to include if one
considers message threading to be a core part of the message.

Another class of fields that may be of interest are those that convey
security-related information about the message, such as
Authentication-Results [RFC5451].

The basic rule for choosing fields to exclude is to select those
fields for which there are multiple fields with the same name and
fields that are modified in transit.  Examples of these are:

o  Return-Path

o  Received

o  Comments, Keywords

Note that the DKIM-Signature field is also excluded from the header
hash because its handling is specified separately.

Typically, it is better to exclude other optional fields because of
the potential that additional fields of the same name will be
legitimately added or reordered prior to verification.  There are
likely to be legitimate exceptions to this rule because of the wide
variety of application-specific header fields that might be applied
to a message, some of which are unlikely to be duplicated, modified,
or reordered.

Signers SHOULD choose canonicalization algorithms based on the types
of messages they process and their aversion to risk.  For example,
e-commerce sites sending primarily purchase receipts, which are not
expected to be processed by mailing lists or other software likely to
modify messages, will generally prefer "simple" canonicalization.



cker, et al.              Standards Track                   [Page 41]

 6376                     DKIM Signatures              September 2011


Sites sending primarily person-to-person email will likely prefer to
be more resilient to modification during transport by using "relaxed"
canonicalization.

Unless mail is processed through intermediaries, such as mailing
lists that might add "unsubscribe" instructions to the bottom of the
message body, the "l=" tag is likely to convey no additional benefit
while providing an avenue for unauthorized addition of text to a
message.  The use of "l=0" takes this to the extreme, allowing
complete alteration of the text of the message without invalidating
the signature.  Moreover, a Verifier would be within its rights to
consider a partly signed message body as unacceptable.  Judicious use
is advised.

.2.  Signatures Involving Multiple Instances of a Field

Signers choosing to sign an existing header field that occurs more
than once in the message (such as Received) MUST sign the physically
last instance of that header field in the header block.  Signers
wishing to sign multiple instances of such a header field MUST
include the header field name multiple times in the "h=" tag of the
DKIM-Signature header field and MUST sign such header fields in order
from the bottom of the header field block to the top.  The Signer MAY
include more instances of a header field name in "h=" than there are
actual corresponding header fields so that the signature will not
verify if additional header fields of that name are added.

   INFORMATIVE EXAMPLE:

   If the Signer wishes to sign two existing Received header fields,
   and the existing header contains:

   Received: <A>
   Received: <B>
   Received: <C>

   then the resulting DKIM-Signature header field should read:

   DKIM-Signature: ... h=Received : Received :...

   and Received header fields <C> and <B> will be signed in that
   order.









cker, et al.              Standards Track                   [Page 42]

 6376                     DKIM Signatures              September 2011


.  Compute the Message Hash and Signature

The Signer MUST compute the message hash as described in Section 3.7
and then sign it using the selected public-key algorithm.  This will
result in a DKIM-Signature header field that will include the body
hash and a signature of the header hash, where that header includes
the DKIM-Signature header field itself.

Entities such as mailing list managers that implement DKIM and that
modify the message or a header field (for example, inserting
unsubscribe information) before retransmitting the message SHOULD
check any existing signature on input and MUST make such
modifications before re-signing the message.

.  Insert the DKIM-Signature Header Field

Finally, the Signer MUST insert the DKIM-Signature header field
created in the previous step prior to transmitting the email.  The
DKIM-Signature header field MUST be the same as used to compute the
hash as described above, except that the value of the "b=" tag MUST
be the appropriately signed hash computed in the previous step,
signed using the algorithm specified in the "a=" tag of the DKIM-
Signature header field and using the private key corresponding to the
selector given in the "s=" tag of the DKIM-Signature header field, as
chosen above in Section 5.2.

The DKIM-Signature header field MUST be inserted before any other
DKIM-Signature fields in the header block.

   INFORMATIVE IMPLEMENTATION NOTE: The easiest way to achieve this
   is to insert the DKIM-Signature header field at the beginning of
   the header block.  In particular, it may be placed before any
   existing Received header fields.  This is consistent with treating
   DKIM-Signature as a trace header field.

 Verifier Actions

Since a Signer MAY remove or revoke a public key at any time, it is
advised that verification occur in a timely manner.  In many
configurations, the most timely place is during acceptance by the
border MTA or shortly thereafter.  In particular, deferring
verification until the message is accessed by the end user is
discouraged.

A border or intermediate MTA MAY verify the message signature(s).  An
MTA who has performed verification MAY communicate the result of that
verification by adding a verification header field to incoming
messages.  This simplifies things considerably for the user, who can



cker, et al.              Standards Track                   [Page 43]

 6376                     DKIM Signatures              September 2011


now use an existing mail user agent.  Most MUAs have the ability to
filter messages based on message header fields or content; these
filters would be used to implement whatever policy the user wishes
with respect to unsigned mail.

A verifying MTA MAY implement a policy with respect to unverifiable
mail, regardless of whether or not it applies the verification header
field to signed messages.

Verifiers MUST produce a result that is semantically equivalent to
applying the steps listed in Sections 6.1, 6.1.1, and 6.1.2 in order.
In practice, several of these steps can be performed in parallel in
order to improve performance.

.  Extract Signatures from the Message

The order in which Verifiers try DKIM-Signature header fields is not
defined; Verifiers MAY try signatures in any order they like.  For
example, one implementation might try the signatures in textual
order, whereas another might try signatures by identities that match
the contents of the From header field before trying other signatures.
Verifiers MUST NOT attribute ultimate meaning to the order of
multiple DKIM-Signature header fields.  In particular, there is
reason to believe that some relays will reorder the header fields in
potentially arbitrary ways.

   INFORMATIVE IMPLEMENTATION NOTE: Verifiers might use the order as
   a clue to signing order in the absence of any other information.
   However, other clues as to the semantics of multiple signatures
   (such as correlating the signing host with Received header fields)
   might also be considered.

Survivability of signatures after transit is not guaranteed, and
signatures can fail to verify through no fault of the Signer.
Therefore, a Verifier SHOULD NOT treat a message that has one or more
bad signatures and no good signatures differently from a message with
no signature at all.

When a signature successfully verifies, a Verifier will either stop
processing or attempt to verify any other signatures, at the
discretion of the implementation.  A Verifier MAY limit the number of
signatures it tries, in order to avoid denial-of-service attacks (see
Section 8.4 for further discussion).

In the following description, text reading "return status
(explanation)" (where "status" is one of "PERMFAIL" or "TEMPFAIL")
means that the Verifier MUST immediately cease processing that
signature.  The Verifier SHOULD proceed to the next signature, if one



cker, et al.              Standards Track                   [Page 44]

 6376                     DKIM Signatures              September 2011


is present, and completely ignore the bad signature.  If the status
is "PERMFAIL", the signature failed and should not be reconsidered.
If the status is "TEMPFAIL", the signature could not be verified at
this time but may be tried again later.  A Verifier MAY either
arrange to defer the message for later processing or try another
signature; if no good signature is found and any of the signatures
resulted in a TEMPFAIL status, the Verifier MAY arrange to defer the
message for later processing.  The "(explanation)" is not normative
text; it is provided solely for clarification.

Verifiers that are prepared to validate multiple signature header
fields SHOULD proceed to the next signature header field, if one
exists.  However, Verifiers MAY make note of the fact that an invalid
signature was present for consideration at a later step.

   INFORMATIVE NOTE: The rationale of this requirement is to permit
   messages that have invalid signatures but also a valid signature
   to work.  For example, a mailing list exploder might opt to leave
   the original submitter signature in place even though the exploder
   knows that it is modifying the message in some way that will break
   that signature, and the exploder inserts its own signature.  In
   this case, the message should succeed even in the presence of the
   known-broken signature.

For each signature to be validated, the following steps should be
performed in such a manner as to produce a result that is
semantically equivalent to performing them in the indicated order.

.1.  Validate the Signature Header Field

Implementers MUST meticulously validate the format and values in the
DKIM-Signature header field; any inconsistency or unexpected values
MUST cause the header field to be completely ignored and the Verifier
to return PERMFAIL (signature syntax error).  Being "liberal in what
you accept" is definitely a bad strategy in this security context.
Note, however, that this does not include the existence of unknown
tags in a DKIM-Signature header field, which are explicitly
permitted.  Verifiers MUST return PERMFAIL (incompatible version)
when presented a DKIM-Signature header field with a "v=" tag that is
inconsistent with this specification.

   INFORMATIVE IMPLEMENTATION NOTE: An implementation may, of course,
   choose to also verify signatures generated by older versions of
   this specification.







cker, et al.              Standards Track                   [Page 45]

 6376                     DKIM Signatures              September 2011


If any tag listed as "required" in Section 3.5 is omitted from the
DKIM-Signature header field, the Verifier MUST ignore the DKIM-
Signature header field and return PERMFAIL (signature missing
required tag).

   INFORMATIVE NOTE: The tags listed as required in Section 3.5 are
   "v=", "a=", "b=", "bh=", "d=", "h=", and "s=".  Should there be a
   conflict between this note and Section 3.5, Section 3.5 is
   normative.

If the DKIM-Signature header field does not contain the "i=" tag, the
Verifier MUST behave as though the value of that tag were "@d", where
"d" is the value from the "d=" tag.

Verifiers MUST confirm that the domain specified in the "d=" tag is
the same as or a parent domain of the domain part of the "i=" tag.
If not, the DKIM-Signature header field MUST be ignored, and the
Verifier should return PERMFAIL (domain mismatch).

If the "h=" tag does not include the From header field, the Verifier
MUST ignore the DKIM-Signature header field and return PERMFAIL (From
field not signed).

Verifiers MAY ignore the DKIM-Signature header field and return
PERMFAIL (signature expired) if it contains an "x=" tag and the
signature has expired.

Verifiers MAY ignore the DKIM-Signature header field if the domain
used by the Signer in the "d=" tag is not associated with a valid
signing entity.  For example, signatures with "d=" values such as
"com" and "co.uk" could be ignored.  The list of unacceptable domains
SHOULD be configurable.

Verifiers MAY ignore the DKIM-Signature header field and return
PERMFAIL (unacceptable signature header) for any other reason, for
example, if the signature does not sign header fields that the
Verifier views to be essential.  As a case in point, if MIME header
fields are not signed, certain attacks may be possible that the
Verifier would prefer to avoid.

.2.  Get the Public Key

The public key for a signature is needed to complete the verification
process.  The process of retrieving the public key depends on the
query type as defined by the "q=" tag in the DKIM-Signature header
field.  Obviously, a public key need only be retrieved if the process
of extracting the signature information is completely successful.




cker, et al.              Standards Track                   [Page 46]

 6376                     DKIM Signatures              September 2011


Details of key management and representation are described in
Section 3.6.  The Verifier MUST validate the key record and MUST
ignore any public-key records that are malformed.

   NOTE: The use of a wildcard TXT RR that covers a queried DKIM
   domain name will produce a response to a DKIM query that is
   unlikely to be a valid DKIM key record.  This problem is not
   specific to DKIM and applies to many other types of queries.
   Client software that processes DNS responses needs to take this
   problem into account.

When validating a message, a Verifier MUST perform the following
steps in a manner that is semantically the same as performing them in
the order indicated; in some cases, the implementation may
parallelize or reorder these steps, as long as the semantics remain
unchanged:

1.  The Verifier retrieves the public key as described in Section 3.6
    using the algorithm in the "q=" tag, the domain from the "d="
    tag, and the selector from the "s=" tag.

2.  If the query for the public key fails to respond, the Verifier
    MAY seek a later verification attempt by returning TEMPFAIL (key
    unavailable).

3.  If the query for the public key fails because the corresponding
    key record does not exist, the Verifier MUST immediately return
    PERMFAIL (no key for signature).

4.  If the query for the public key returns multiple key records, the
    Verifier can choose one of the key records or may cycle through
    the key records, performing the remainder of these steps on each
    record at the discretion of the implementer.  The order of the
    key records is unspecified.  If the Verifier chooses to cycle
    through the key records, then the "return ..." wording in the
    remainder of this section means "try the next key record, if any;
    if none, return to try another signature in the usual way".

5.  If the result returned from the query does not adhere to the
    format defined in this specification, the Verifier MUST ignore
    the key record and return PERMFAIL (key syntax error).  Verifiers
    are urged to validate the syntax of key records carefully to
    avoid attempted attacks.  In particular, the Verifier MUST ignore
    keys with a version code ("v=" tag) that they do not implement.







cker, et al.              Standards Track                   [Page 47]

 6376                     DKIM Signatures              September 2011


6.  If the "h=" tag exists in the public-key record and the hash
    algorithm implied by the "a=" tag in the DKIM-Signature header
    field is not included in the contents of the "h=" tag, the
    Verifier MUST ignore the key record and return PERMFAIL
    (inappropriate hash algorithm).

7.  If the public-key data (the "p=" tag) is empty, then this key has
    been revoked and the Verifier MUST treat this as a failed
    signature check and return PERMFAIL (key revoked).  There is no
    defined semantic difference between a key that has been revoked
    and a key record that has been removed.

8.  If the public-key data is not suitable for use with the algorithm
    and key types defined by the "a=" and "k=" tags in the DKIM-
    Signature header field, the Verifier MUST immediately return
    PERMFAIL (inappropriate key algorithm).

.3.  Compute the Verification

Given a Signer and a public key, verifying a signature consists of
actions semantically equivalent to the following steps.

1.  Based on the algorithm defined in the "c=" tag, the body length
    specified in the "l=" tag, and the header field names in the "h="
    tag, prepare a canonicalized version of the message as is
    described in Section 3.7 (note that this canonicalized version
    does not actually replace the original content).  When matching
    header field names in the "h=" tag against the actual message
    header field, comparisons MUST be case-insensitive.

2.  Based on the algorithm indicated in the "a=" tag, compute the
    message hashes from the canonical copy as described in
    Section 3.7.

3.  Verify that the hash of the canonicalized message body computed
    in the previous step matches the hash value conveyed in the "bh="
    tag.  If the hash does not match, the Verifier SHOULD ignore the
    signature and return PERMFAIL (body hash did not verify).

4.  Using the signature conveyed in the "b=" tag, verify the
    signature against the header hash using the mechanism appropriate
    for the public-key algorithm described in the "a=" tag.  If the
    signature does not validate, the Verifier SHOULD ignore the
    signature and return PERMFAIL (signature did not verify).







cker, et al.              Standards Track                   [Page 48]

 6376                     DKIM Signatures              September 2011


5.  Otherwise, the signature has correctly verified.

   INFORMATIVE IMPLEMENTER'S NOTE: Implementations might wish to
   initiate the public-key query in parallel with calculating the
   hash as the public key is not needed until the final decryption is
   calculated.  Implementations may also verify the signature on the
   message header before validating that the message hash listed in
   the "bh=" tag in the DKIM-Signature header field matches that of
   the actual message body; however, if the body hash does not match,
   the entire signature must be considered to have failed.

A body length specified in the "l=" tag of the signature limits the
number of bytes of the body passed to the verification algorithm.
All data beyond that limit is not validated by DKIM.  Hence,
Verifiers might treat a message that contains bytes beyond the
indicated body length with suspicion and can choose to treat the
signature as if it were invalid (e.g., by returning PERMFAIL
(unsigned content)).

Should the algorithm reach this point, the verification has
succeeded, and DKIM reports SUCCESS for this signature.

.  Communicate Verification Results

Verifiers wishing to communicate the results of verification to other
parts of the mail system may do so in whatever manner they see fit.
For example, implementations might choose to add an email header
field to the message before passing it on.  Any such header field
SHOULD be inserted before any existing DKIM-Signature or preexisting
authentication status header fields in the header field block.  The
Authentication-Results: header field ([RFC5451]) MAY be used for this
purpose.

   INFORMATIVE ADVICE to MUA filter writers: Patterns intended to
   search for results header fields to visibly mark authenticated
   mail for end users should verify that such a header field was
   added by the appropriate verifying domain and that the verified
   identity matches the author identity that will be displayed by the
   MUA.  In particular, MUA filters should not be influenced by bogus
   results header fields added by attackers.  To circumvent this
   attack, Verifiers MAY wish to request deletion of existing results
   header fields after verification and before arranging to add a new
   header field.








cker, et al.              Standards Track                   [Page 49]

 6376                     DKIM Signatures              September 2011


.  Interpret Results/Apply Local Policy

It is beyond the scope of this specification to describe what actions
an Identity Assessor can make, but mail carrying a validated SDID
presents an opportunity to an Identity Assessor that unauthenticated
email does not.  Specifically, an authenticated email creates a
predictable identifier by which other decisions can reliably be
managed, such as trust and reputation.  Conversely, unauthenticated
email lacks a reliable identifier that can be used to assign trust
and reputation.  It is reasonable to treat unauthenticated email as
lacking any trust and having no positive reputation.

In general, modules that consume DKIM verification output SHOULD NOT
determine message acceptability based solely on a lack of any
signature or on an unverifiable signature; such rejection would cause
severe interoperability problems.  If an MTA does wish to reject such
messages during an SMTP session (for example, when communicating with
a peer who, by prior agreement, agrees to only send signed messages),
and a signature is missing or does not verify, the handling MTA
SHOULD use a 550/5.7.x reply code.

Where the Verifier is integrated within the MTA and it is not
possible to fetch the public key, perhaps because the key server is
not available, a temporary failure message MAY be generated using a
451/4.7.5 reply code, such as:

451 4.7.5 Unable to verify signature - key server unavailable

Temporary failures such as inability to access the key server or
other external service are the only conditions that SHOULD use a 4xx
SMTP reply code.  In particular, cryptographic signature verification
failures MUST NOT provoke 4xx SMTP replies.

Once the signature has been verified, that information MUST be
conveyed to the Identity Assessor (such as an explicit allow/
whitelist and reputation system) and/or to the end user.  If the SDID
is not the same as the address in the From: header field, the mail
system SHOULD take pains to ensure that the actual SDID is clear to
the reader.

While the symptoms of a failed verification are obvious -- the
signature doesn't verify -- establishing the exact cause can be more
difficult.  If a selector cannot be found, is that because the
selector has been removed, or was the value changed somehow in
transit?  If the signature line is missing, is that because it was
never there, or was it removed by an overzealous filter?  For
diagnostic purposes, the exact reason why the verification fails
SHOULD be made available and possibly recorded in the system logs.



cker, et al.              Standards Track                   [Page 50]

 6376                     DKIM Signatures              September 2011


If the email cannot be verified, then it SHOULD be treated the same
as all unverified email, regardless of whether or not it looks like
it was signed.

See Section 8.15 for additional discussion.

 IANA Considerations

DKIM has registered namespaces with IANA.  In all cases, new values
are assigned only for values that have been documented in a published
RFC that has IETF Consensus [RFC5226].

This memo updates these registries as described below.  Of note is
the addition of a new "status" column.  All registrations into these
namespaces MUST include the name being registered, the document in
which it was registered or updated, and an indication of its current
status, which MUST be one of "active" (in current use) or "historic"
(no longer in current use).

No new tags are defined in this specification compared to [RFC4871],
but one has been designated as "historic".

Also, the "Email Authentication Methods" registry is revised to refer
to this update.

.  Email Authentication Methods Registry

The "Email Authentication Methods" registry is updated to indicate
that "dkim" is defined in this memo.

.  DKIM-Signature Tag Specifications

A DKIM-Signature provides for a list of tag specifications.  IANA has
established the "DKIM-Signature Tag Specifications" registry for tag
specifications that can be used in DKIM-Signature fields.
















cker, et al.              Standards Track                   [Page 51]

 6376                     DKIM Signatures              September 2011


                 +------+-----------------+--------+
                 | TYPE | REFERENCE       | STATUS |
                 +------+-----------------+--------+
                 |   v  | (this document) | active |
                 |   a  | (this document) | active |
                 |   b  | (this document) | active |
                 |  bh  | (this document) | active |
                 |   c  | (this document) | active |
                 |   d  | (this document) | active |
                 |   h  | (this document) | active |
                 |   i  | (this document) | active |
                 |   l  | (this document) | active |
                 |   q  | (this document) | active |
                 |   s  | (this document) | active |
                 |   t  | (this document) | active |
                 |   x  | (this document) | active |
                 |   z  | (this document) | active |
                 +------+-----------------+--------+

 Table 1: DKIM-Signature Tag Specifications Registry Updated Values

.  DKIM-Signature Query Method Registry

The "q=" tag-spec (specified in Section 3.5) provides for a list of
query methods.

IANA has established the "DKIM-Signature Query Method" registry for
mechanisms that can be used to retrieve the key that will permit
validation processing of a message signed using DKIM.

            +------+--------+-----------------+--------+
            | TYPE | OPTION | REFERENCE       | STATUS |
            +------+--------+-----------------+--------+
            |  dns |   txt  | (this document) | active |
            +------+--------+-----------------+--------+

    Table 2: DKIM-Signature Query Method Registry Updated Values

.  DKIM-Signature Canonicalization Registry

The "c=" tag-spec (specified in Section 3.5) provides for a specifier
for canonicalization algorithms for the header and body of the
message.

IANA has established the "DKIM-Signature Canonicalization Header"
Registry for algorithms for converting a message into a canonical
form before signing or verifying using DKIM.




cker, et al.              Standards Track                   [Page 52]

 6376                     DKIM Signatures              September 2011


               +---------+-----------------+--------+
               |   TYPE  | REFERENCE       | STATUS |
               +---------+-----------------+--------+
               |  simple | (this document) | active |
               | relaxed | (this document) | active |
               +---------+-----------------+--------+

  Table 3: DKIM-Signature Canonicalization Header Registry Updated
                               Values

               +---------+-----------------+--------+
               |   TYPE  | REFERENCE       | STATUS |
               +---------+-----------------+--------+
               |  simple | (this document) | active |
               | relaxed | (this document) | active |
               +---------+-----------------+--------+

Table 4: DKIM-Signature Canonicalization Body Registry Updated Values

.  _domainkey DNS TXT Resource Record Tag Specifications

A _domainkey DNS TXT RR provides for a list of tag specifications.
IANA has established the DKIM "_domainkey DNS TXT Record Tag
Specifications" registry for tag specifications that can be used in
DNS TXT resource records.

                +------+-----------------+----------+
                | TYPE | REFERENCE       | STATUS   |
                +------+-----------------+----------+
                |   v  | (this document) | active   |
                |   g  | [RFC4871]       | historic |
                |   h  | (this document) | active   |
                |   k  | (this document) | active   |
                |   n  | (this document) | active   |
                |   p  | (this document) | active   |
                |   s  | (this document) | active   |
                |   t  | (this document) | active   |
                +------+-----------------+----------+

   Table 5: _domainkey DNS TXT Record Tag Specifications Registry
                           Updated Values

.  DKIM Key Type Registry

The "k=" <key-k-tag> (specified in Section 3.6.1) and the "a=" <sig-
a-tag-k> (specified in Section 3.5) tags provide for a list of
mechanisms that can be used to decode a DKIM signature.




cker, et al.              Standards Track                   [Page 53]

 6376                     DKIM Signatures              September 2011


IANA has established the "DKIM Key Type" registry for such
mechanisms.

                    +------+-----------+--------+
                    | TYPE | REFERENCE | STATUS |
                    +------+-----------+--------+
                    |  rsa | [RFC3447] | active |
                    +------+-----------+--------+

           Table 6: DKIM Key Type Registry Updated Values

.  DKIM Hash Algorithms Registry

The "h=" <key-h-tag> (specified in Section 3.6.1) and the "a=" <sig-
a-tag-h> (specified in Section 3.5) tags provide for a list of
mechanisms that can be used to produce a digest of message data.

IANA has established the "DKIM Hash Algorithms" registry for such
mechanisms.

               +--------+-------------------+--------+
               |  TYPE  | REFERENCE         | STATUS |
               +--------+-------------------+--------+
               |  sha1  | [FIPS-180-3-2008] | active |
               | sha256 | [FIPS-180-3-2008] | active |
               +--------+-------------------+--------+

        Table 7: DKIM Hash Algorithms Registry Updated Values

.  DKIM Service Types Registry

The "s=" <key-s-tag> tag (specified in Section 3.6.1) provides for a
list of service types to which this selector may apply.

IANA has established the "DKIM Service Types" registry for service
types.

                +-------+-----------------+--------+
                |  TYPE | REFERENCE       | STATUS |
                +-------+-----------------+--------+
                | email | (this document) | active |
                |   *   | (this document) | active |
                +-------+-----------------+--------+

         Table 8: DKIM Service Types Registry Updated Values






cker, et al.              Standards Track                   [Page 54]

 6376                     DKIM Signatures              September 2011


.  DKIM Selector Flags Registry

The "t=" <key-t-tag> tag (specified in Section 3.6.1) provides for a
list of flags to modify interpretation of the selector.

IANA has established the "DKIM Selector Flags" registry for
additional flags.

                 +------+-----------------+--------+
                 | TYPE | REFERENCE       | STATUS |
                 +------+-----------------+--------+
                 |   y  | (this document) | active |
                 |   s  | (this document) | active |
                 +------+-----------------+--------+

        Table 9: DKIM Selector Flags Registry Updated Values

0.  DKIM-Signature Header Field

IANA has added DKIM-Signature to the "Permanent Message Header Field
Names" registry (see [RFC3864]) for the "mail" protocol, using this
document as the reference.

 Security Considerations

It has been observed that any introduced mechanism that attempts to
stem the flow of spam is subject to intensive attack.  DKIM needs to
be carefully scrutinized to identify potential attack vectors and the
vulnerability to each.  See also [RFC4686].

.  ASCII Art Attacks

The relaxed body canonicalization algorithm may enable certain types
of extremely crude "ASCII Art" attacks where a message may be
conveyed by adjusting the spacing between words.  If this is a
concern, the "simple" body canonicalization algorithm should be used
instead.

.  Misuse of Body Length Limits ("l=" Tag)

Use of the "l=" tag might allow display of fraudulent content without
appropriate warning to end users.  The "l=" tag is intended for
increasing signature robustness when sending to mailing lists that
both modify their content and do not sign their modified messages.
However, using the "l=" tag enables attacks in which an intermediary
with malicious intent can modify a message to include content that
solely benefits the attacker.  It is possible for the appended




cker, et al.              Standards Track                   [Page 55]

 6376                     DKIM Signatures              September 2011


content to completely replace the original content in the end
recipient's eyes and to defeat duplicate message detection
algorithms.

An example of such an attack includes altering the MIME structure,
exploiting lax HTML parsing in the MUA, and defeating duplicate
message detection algorithms.

To avoid this attack, Signers should be extremely wary of using this
tag, and Assessors might wish to ignore signatures that use the tag.

.  Misappropriated Private Key

As with any other security application that uses private- or public-
key pairs, DKIM requires caution around the handling and protection
of keys.  A compromised private key or access to one means an
intruder or malware can send mail signed by the domain that
advertises the matching public key.

Thus, private keys issued to users, rather than one used by an
ADministrative Management Domain (ADMD) itself, create the usual
problem of securing data stored on personal resources that can affect
the ADMD.

A more secure architecture involves sending messages through an
outgoing MTA that can authenticate the submitter using existing
techniques (e.g., SMTP Authentication), possibly validate the message
itself (e.g., verify that the header is legitimate and that the
content passes a spam content check), and sign the message using a
key appropriate for the submitter address.  Such an MTA can also
apply controls on the volume of outgoing mail each user is permitted
to originate in order to further limit the ability of malware to
generate bulk email.

.  Key Server Denial-of-Service Attacks

Since the key servers are distributed (potentially separate for each
domain), the number of servers that would need to be attacked to
defeat this mechanism on an Internet-wide basis is very large.
Nevertheless, key servers for individual domains could be attacked,
impeding the verification of messages from that domain.  This is not
significantly different from the ability of an attacker to deny
service to the mail exchangers for a given domain, although it
affects outgoing, not incoming, mail.

A variation on this attack involves a very large amount of mail being
sent using spoofed signatures from a given domain: the key servers
for that domain could be overwhelmed with requests in a denial-of-



cker, et al.              Standards Track                   [Page 56]

 6376                     DKIM Signatures              September 2011


service attack (see [RFC4732]).  However, given the low overhead of
verification compared with handling of the email message itself, such
an attack would be difficult to mount.

.  Attacks against the DNS

Since the DNS is a required binding for key services, specific
attacks against the DNS must be considered.

While the DNS is currently insecure [RFC3833], these security
problems are the motivation behind DNS Security (DNSSEC) [RFC4033],
and all users of the DNS will reap the benefit of that work.

DKIM is only intended as a "sufficient" method of proving
authenticity.  It is not intended to provide strong cryptographic
proof about authorship or contents.  Other technologies such as
OpenPGP [RFC4880] and S/MIME [RFC5751] address those requirements.

A second security issue related to the DNS revolves around the
increased DNS traffic as a consequence of fetching selector-based
data as well as fetching signing domain policy.  Widespread
deployment of DKIM will result in a significant increase in DNS
queries to the claimed signing domain.  In the case of forgeries on a
large scale, DNS servers could see a substantial increase in queries.

A specific DNS security issue that should be considered by DKIM
Verifiers is the name chaining attack described in Section 2.3 of
[RFC3833].  A DKIM Verifier, while verifying a DKIM-Signature header
field, could be prompted to retrieve a key record of an attacker's
choosing.  This threat can be minimized by ensuring that name
servers, including recursive name servers, used by the Verifier
enforce strict checking of "glue" and other additional information in
DNS responses and are therefore not vulnerable to this attack.

.  Replay/Spam Attacks

In this attack, a spammer sends a piece of spam through an MTA that
signs it, banking on the reputation of the signing domain (e.g., a
large popular mailbox provider) rather than its own, and then re-
sends that message to a large number of intended recipients.  The
recipients observe the valid signature from the well-known domain,
elevating their trust in the message and increasing the likelihood of
delivery and presentation to the user.

Partial solutions to this problem involve the use of reputation
services to convey the fact that the specific email address is being
used for spam and that messages from that Signer are likely to be
spam.  This requires a real-time detection mechanism in order to



cker, et al.              Standards Track                   [Page 57]

 6376                     DKIM Signatures              September 2011


react quickly enough.  However, such measures might be prone to
abuse, if, for example, an attacker re-sent a large number of
messages received from a victim in order to make the victim appear to
be a spammer.

Large Verifiers might be able to detect unusually large volumes of
mails with the same signature in a short time period.  Smaller
Verifiers can get substantially the same volume of information via
existing collaborative systems.

.  Limits on Revoking Keys

When a large domain detects undesirable behavior on the part of one
of its users, it might wish to revoke the key used to sign that
user's messages in order to disavow responsibility for messages that
have not yet been verified or that are the subject of a replay
attack.  However, the ability of the domain to do so can be limited
if the same key, for scalability reasons, is used to sign messages
for many other users.  Mechanisms for explicitly revoking keys on a
per-address basis have been proposed but require further study as to
their utility and the DNS load they represent.

.  Intentionally Malformed Key Records

It is possible for an attacker to publish key records in DNS that are
intentionally malformed, with the intent of causing a denial-of-
service attack on a non-robust Verifier implementation.  The attacker
could then cause a Verifier to read the malformed key record by
sending a message to one of its users referencing the malformed
record in a (not necessarily valid) signature.  Verifiers MUST
thoroughly verify all key records retrieved from the DNS and be
robust against intentionally as well as unintentionally malformed key
records.

.  Intentionally Malformed DKIM-Signature Header Fields

Verifiers MUST be prepared to receive messages with malformed DKIM-
Signature header fields and thoroughly verify the header field before
depending on any of its contents.

0.  Information Leakage

An attacker could determine when a particular signature was verified
by using a per-message selector and then monitoring their DNS traffic
for the key lookup.  This would act as the equivalent of a "web bug"
for verification time rather than the time the message was read.





cker, et al.              Standards Track                   [Page 58]

 6376                     DKIM Signatures              September 2011


1.  Remote Timing Attacks

In some cases, it may be possible to extract private keys using a
remote timing attack [BONEH03].  Implementations should consider
obfuscating the timing to prevent such attacks.

2.  Reordered Header Fields

Existing standards allow intermediate MTAs to reorder header fields.
If a Signer signs two or more header fields of the same name, this
can cause spurious verification errors on otherwise legitimate
messages.  In particular, Signers that sign any existing DKIM-
Signature fields run the risk of having messages incorrectly fail to
verify.

3.  RSA Attacks

An attacker could create a large RSA signing key with a small
exponent, thus requiring that the verification key have a large
exponent.  This will force Verifiers to use considerable computing
resources to verify the signature.  Verifiers might avoid this attack
by refusing to verify signatures that reference selectors with public
keys having unreasonable exponents.

In general, an attacker might try to overwhelm a Verifier by flooding
it with messages requiring verification.  This is similar to other
MTA denial-of-service attacks and should be dealt with in a similar
fashion.

4.  Inappropriate Signing by Parent Domains

The trust relationship described in Section 3.10 could conceivably be
used by a parent domain to sign messages with identities in a
subdomain not administratively related to the parent.  For example,
the ".com" registry could create messages with signatures using an
"i=" value in the example.com domain.  There is no general solution
to this problem, since the administrative cut could occur anywhere in
the domain name.  For example, in the domain "example.podunk.ca.us",
there are three administrative cuts (podunk.ca.us, ca.us, and us),
any of which could create messages with an identity in the full
domain.

   INFORMATIVE NOTE: This is considered an acceptable risk for the
   same reason that it is acceptable for domain delegation.  For
   example, in the case above, any of the domains could potentially
   simply delegate "example.podunk.ca.us" to a server of their choice





cker, et al.              Standards Track                   [Page 59]

 6376                     DKIM Signatures              September 2011


   and completely replace all DNS-served information.  Note that a
   Verifier MAY ignore signatures that come from an unlikely domain
   such as ".com", as discussed in Section 6.1.1.

5.  Attacks Involving Extra Header Fields

Many email components, including MTAs, MSAs, MUAs, and filtering
modules, implement message format checks only loosely.  This is done
out of years of industry pressure to be liberal in what is accepted
into the mail stream for the sake of reducing support costs;
improperly formed messages are often silently fixed in transit,
delivered unrepaired, or displayed inappropriately (e.g., by showing
only the first of multiple From: fields).

Agents that evaluate or apply DKIM output need to be aware that a
DKIM Signer can sign messages that are malformed (e.g., violate
[RFC5322], such as by having multiple instances of a field that is
only permitted once), that become malformed in transit, or that
contain header or body content that is not true or valid.  Use of
DKIM on such messages might constitute an attack against a receiver,
especially where additional credence is given to a signed message
without adequate evaluation of the Signer.

These can represent serious attacks, but they have nothing to do with
DKIM; they are attacks on the recipient or on the wrongly identified
author.

Moreover, an agent would be incorrect to infer that all instances of
a header field are signed just because one is.

A genuine signature from the domain under attack can be obtained by
legitimate means, but extra header fields can then be added, either
by interception or by replay.  In this scenario, DKIM can aid in
detecting addition of specific fields in transit.  This is done by
having the Signer list the field name(s) in the "h=" tag an extra
time (e.g., "h=from:from:..." for a message with one From field), so
that addition of an instance of that field downstream will render the
signature unable to be verified.  (See Section 3.5 for details.)
This, in essence, is an explicit indication that the Signer
repudiates responsibility for such a malformed message.

DKIM signs and validates the data it is told to and works correctly.
So in this case, DKIM has done its job of delivering a validated
domain (the "d=" value) and, given the semantics of a DKIM signature,
essentially the Signer has taken some responsibility for a
problematic message.  It is up to the Identity Assessor or some other





cker, et al.              Standards Track                   [Page 60]

 6376                     DKIM Signatures              September 2011


subsequent agent to act on such messages as needed, such as degrading
the trust of the message (or, indeed, of the Signer), warning the
recipient, or even refusing delivery.

All components of the mail system that perform loose enforcement of
other mail standards will need to revisit that posture when
incorporating DKIM, especially when considering matters of potential
attacks such as those described.

 References

.  Normative References

[FIPS-180-3-2008]
           U.S. Department of Commerce, "Secure Hash Standard", FIPS
           PUB 180-3, October 2008.

[ITU-X660-1997]
           "Information Technology - ASN.1 encoding rules:
           Specification of Basic Encoding Rules (BER), Canonical
           Encoding Rules (CER) and Distinguished Encoding Rules
           (DER)", 1997.

[RFC1034]  Mockapetris, P., "Domain names - concepts and facilities",
           STD 13, RFC 1034, November 1987.

[RFC2045]  Freed, N. and N. Borenstein, "Multipurpose Internet Mail
           Extensions (MIME) Part One: Format of Internet Message
           Bodies", RFC 2045, November 1996.

[RFC2049]  Freed, N. and N. Borenstein, "Multipurpose Internet Mail
           Extensions (MIME) Part Five: Conformance Criteria and
           Examples", RFC 2049, November 1996.

[RFC2119]  Bradner, S., "Key words for use in RFCs to Indicate
           Requirement Levels", BCP 14, RFC 2119, March 1997.

[RFC3447]  Jonsson, J. and B. Kaliski, "Public-Key Cryptography
           Standards (PKCS) #1: RSA Cryptography Specifications
           Version 2.1", RFC 3447, February 2003.

[RFC5234]  Crocker, D. and P. Overell, "Augmented BNF for Syntax
           Specifications: ABNF", STD 68, RFC 5234, January 2008.

[RFC5321]  Klensin, J., "Simple Mail Transfer Protocol", RFC 5321,
           October 2008.





cker, et al.              Standards Track                   [Page 61]

 6376                     DKIM Signatures              September 2011


[RFC5322]  Resnick, P., Ed., "Internet Message Format", RFC 5322,
           October 2008.

[RFC5598]  Crocker, D., "Internet Mail Architecture", RFC 5598,
           July 2009.

[RFC5890]  Klensin, J., "Internationalized Domain Names for
           Applications (IDNA): Definitions and Document Framework",
           RFC 5890, August 2010.

.  Informative References

[BONEH03]  "Remote Timing Attacks are Practical", Proceedings 12th
           USENIX Security Symposium, 2003.

[RFC2047]  Moore, K., "MIME (Multipurpose Internet Mail Extensions)
           Part Three: Message Header Extensions for Non-ASCII Text",
           RFC 2047, November 1996.

[RFC3629]  Yergeau, F., "UTF-8, a transformation format of ISO
           10646", STD 63, RFC 3629, November 2003.

[RFC3766]  Orman, H. and P. Hoffman, "Determining Strengths For
           Public Keys Used For Exchanging Symmetric Keys", BCP 86,
           RFC 3766, April 2004.

[RFC3833]  Atkins, D. and R. Austein, "Threat Analysis of the Domain
           Name System (DNS)", RFC 3833, August 2004.

[RFC3864]  Klyne, G., Nottingham, M., and J. Mogul, "Registration
           Procedures for Message Header Fields", BCP 90, RFC 3864,
           September 2004.

[RFC4033]  Arends, R., Austein, R., Larson, M., Massey, D., and S.
           Rose, "DNS Security Introduction and Requirements",
           RFC 4033, March 2005.

[RFC4409]  Gellens, R. and J. Klensin, "Message Submission for Mail",
           RFC 4409, April 2006.

[RFC4686]  Fenton, J., "Analysis of Threats Motivating DomainKeys
           Identified Mail (DKIM)", RFC 4686, September 2006.

[RFC4732]  Handley, M., Rescorla, E., and IAB, "Internet Denial-of-
           Service Considerations", RFC 4732, December 2006.






cker, et al.              Standards Track                   [Page 62]

 6376                     DKIM Signatures              September 2011


[RFC4870]  Delany, M., "Domain-Based Email Authentication Using
           Public Keys Advertised in the DNS (DomainKeys)", RFC 4870,
           May 2007.

[RFC4871]  Allman, E., Callas, J., Delany, M., Libbey, M., Fenton,
           J., and M. Thomas, "DomainKeys Identified Mail (DKIM)
           Signatures", RFC 4871, May 2007.

[RFC4880]  Callas, J., Donnerhacke, L., Finney, H., Shaw, D., and R.
           Thayer, "OpenPGP Message Format", RFC 4880, November 2007.

[RFC5226]  Narten, T. and H. Alvestrand, "Guidelines for Writing an
           IANA Considerations Section in RFCs", BCP 26, RFC 5226,
           May 2008.

[RFC5451]  Kucherawy, M., "Message Header Field for Indicating
           Message Authentication Status", RFC 5451, April 2009.

[RFC5585]  Hansen, T., Crocker, D., and P. Hallam-Baker, "DomainKeys
           Identified Mail (DKIM) Service Overview", RFC 5585,
           July 2009.

[RFC5672]  Crocker, D., "RFC 4871 DomainKeys Identified Mail (DKIM)
           Signatures -- Update", RFC 5672, August 2009.

[RFC5751]  Ramsdell, B. and S. Turner, "Secure/Multipurpose Internet
           Mail Extensions (S/MIME) Version 3.2 Message
           Specification", RFC 5751, January 2010.

[RFC5863]  Hansen, T., Siegel, E., Hallam-Baker, P., and D. Crocker,
           "DomainKeys Identified Mail (DKIM) Development,
           Deployment, and Operations", RFC 5863, May 2010.

[RFC6377]  Kucherawy, M., "DomainKeys Identified Mail (DKIM) and
           Mailing Lists", RFC 6377, September 2011.
















cker, et al.              Standards Track                   [Page 63]

 6376                     DKIM Signatures              September 2011


endix A.  Example of Use (INFORMATIVE)

This section shows the complete flow of an email from submission to
final delivery, demonstrating how the various components fit
together.  The key used in this example is shown in Appendix C.

.  The User Composes an Email

From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")

#: RFC 6376 A.1: the message before it was signed.
PLAIN = MESSAGE_8463[MESSAGE_8463.index(b"From:") :]
