"""Files beside videos that tell what is in them: JSON of our own, or XMP, which photo and film software reads.

XMP has the labels as `dc:subject`, which such software shows as keywords, and a track of `xmpDM` markers with times in
milliseconds. A file that we did not write is never overwritten: each of ours says so in itself.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from pipeline.rollup import Segment, labels_of
from pipeline.tag_formats import GENERATOR
from pipeline.tagged import TaggedVideo

_LOOK_BYTES = 4096  # of a file that is there, in which ours name themselves
_UNFIT = re.compile("[^\\x09\\x0a\\x0d\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")  # no text of XML 1.0
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="{generator}">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmpDM="http://ns.adobe.com/xmp/1.0/DynamicMedia/">
   <dc:subject>
    <rdf:Bag>
{subjects}
    </rdf:Bag>
   </dc:subject>
   <xmpDM:Tracks>
    <rdf:Bag>
     <rdf:li rdf:parseType="Resource">
      <xmpDM:trackName>{generator}</xmpDM:trackName>
      <xmpDM:trackType>Chapter</xmpDM:trackType>
      <xmpDM:frameRate>f1000</xmpDM:frameRate>
      <xmpDM:markers>
       <rdf:Seq>
{markers}
       </rdf:Seq>
      </xmpDM:markers>
     </rdf:li>
    </rdf:Bag>
   </xmpDM:Tracks>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def as_json(video: TaggedVideo) -> str:
    """What is known of a video's labels, as JSON."""
    labels = [
        {name: value for name, value in asdict(line).items() if name not in ("video_id", "uri")}
        for line in labels_of(video)
    ]
    content = {
        "generator": GENERATOR,
        "video_id": video.video_id,
        "uri": video.uri,
        "duration_s": video.duration_s,
        "labels": labels,
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def as_xmp(video: TaggedVideo) -> str:
    """The same as an XMP packet: keywords, and a chapter marker for each segment of a label."""
    lines = labels_of(video)
    subjects = [f"     <rdf:li>{_text(line.label)}</rdf:li>" for line in lines]
    pairs = [(segment, line.label) for line in lines for segment in line.segments]
    markers = [_marker(*pair) for pair in sorted(pairs, key=lambda pair: (pair[0].start_s, pair[1]))]
    return _XMP.format(generator=GENERATOR, subjects="\n".join(subjects), markers="\n".join(markers))


def _marker(segment: Segment, label: str) -> str:
    """A marker, in the track's thousandths of a second."""
    start, length = round(1000 * segment.start_s), round(1000 * (segment.end_s - segment.start_s))
    return (
        f"        <rdf:li xmpDM:startTime={quoteattr(str(start))} xmpDM:duration={quoteattr(str(length))}"
        f' xmpDM:name={quoteattr(_fit(label))} xmpDM:type="Chapter"/>'
    )


def _text(value: str) -> str:
    """A text as XML can hold it between tags."""
    return escape(_fit(value))


def _fit(value: str) -> str:
    """A text without the characters that no XML can hold."""
    return _UNFIT.sub("\ufffd", value)


def is_ours(file: Path) -> bool:
    """Whether a file that is there was written by us. Raises OSError when it cannot be read."""
    with file.open("rb") as stream:
        return GENERATOR.encode() in stream.read(_LOOK_BYTES)
