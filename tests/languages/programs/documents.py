import docx
import openpyxl
import pptx
import pypdf
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen import canvas

book = openpyxl.Workbook()
book.active["A1"] = "世界"
book.active["B1"] = 42
book.save("table.xlsx")
sheet = openpyxl.load_workbook("table.xlsx").active
print(sheet["A1"].value, sheet["B1"].value)

document = docx.Document()
document.add_paragraph("世界")
document.save("text.docx")
print(docx.Document("text.docx").paragraphs[0].text)

slides = pptx.Presentation()
slide = slides.slides.add_slide(slides.slide_layouts[0])
slide.shapes.title.text = "世界"
slides.save("slides.pptx")
print(pptx.Presentation("slides.pptx").slides[0].shapes.title.text)

pdfmetrics.registerFont(TTFont("Fallback", "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"))
page = canvas.Canvas("page.pdf")
page.drawString(72, 720, "World")
page.setFont("Fallback", 20)
page.drawString(72, 680, "世界")
page.save()
print(pypdf.PdfReader("page.pdf").pages[0].extract_text().split("\n")[0])
