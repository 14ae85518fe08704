// A field of many objects of one type, read without a call where the type keeps it in a slot, as msgspec's structs do.

#pragma once

#include <pybind11/pybind11.h>

#include <structmember.h>

class Field {
  public:
    explicit Field(const char *const name) : name_(PyUnicode_InternFromString(name)) {}

    // The object's field, borrowed: it stands as long as the object does.
    PyObject *of(PyObject *const object) {
        if (Py_TYPE(object) != type_) resolve(Py_TYPE(object));
        PyObject *const value = *reinterpret_cast<PyObject **>(reinterpret_cast<char *>(object) + offset_);
        if (!value) throw pybind11::attribute_error(pybind11::str(name_));
        return value;
    }

  private:
    void resolve(PyTypeObject *const type) {
        PyObject *const found = _PyType_Lookup(type, name_);
        if (!found || Py_TYPE(found) != &PyMemberDescr_Type)
            throw pybind11::type_error(pybind11::str(name_).cast<std::string>() + " is no slot of this type");
        const PyMemberDef *const member = reinterpret_cast<PyMemberDescrObject *>(found)->d_member;
        if (member->type != T_OBJECT_EX && member->type != T_OBJECT)
            throw pybind11::type_error("a slot that holds no object");
        type_ = type;
        offset_ = member->offset;
    }

    PyObject *const name_;
    PyTypeObject *type_ = nullptr;
    Py_ssize_t offset_ = 0;
};
